import java.io.BufferedOutputStream;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.storm.generated.Bolt;
import org.apache.storm.generated.ComponentCommon;
import org.apache.storm.generated.ComponentObject;
import org.apache.storm.generated.GlobalStreamId;
import org.apache.storm.generated.Grouping;
import org.apache.storm.generated.NullStruct;
import org.apache.storm.generated.ShellComponent;
import org.apache.storm.generated.SpoutSpec;
import org.apache.storm.generated.StormTopology;
import org.apache.storm.generated.StreamInfo;
import org.apache.storm.multilang.BoltMsg;
import org.apache.storm.multilang.ISerializer;
import org.apache.storm.multilang.NoOutputException;
import org.apache.storm.multilang.ShellMsg;
import org.apache.storm.multilang.SpoutMsg;
import org.apache.storm.task.TopologyContext;
import org.apache.storm.tuple.Fields;

/**
 * Storm's side of a multilang pipe, with the real serializer on this process's standard streams; the test is the subprocess.
 *
 * <p>Arguments: the serializer's class, the folder for pid files, and KEY=NUMBER settings. After the handshake each message is answered by what Storm got to
 * see of it, in a message to a bolt; some commands do more. What went wrong is told on standard error, by the exit code 3 for NoOutputException, 4 for others.
 */
public final class Harness {
    private Harness() {
    }

    public static void main(String[] arguments) throws Exception {
        ISerializer serializer = (ISerializer) Class.forName(arguments[0]).getDeclaredConstructor().newInstance();
        InputStream in = new FileInputStream(FileDescriptor.in);
        OutputStream out = new BufferedOutputStream(new FileOutputStream(FileDescriptor.out));
        try {
            serializer.initialize(out, in);
            Number pid = serializer.connect(conf(arguments), context(arguments[1]));
            System.err.println("pid " + pid);
            while (answer(serializer, serializer.readShellMsg())) {
                continue;
            }
        } catch (NoOutputException end) {
            System.err.println(end);
            System.exit(3);
        } catch (IOException | IllegalArgumentException problem) {
            System.err.println(problem);
            System.err.println("heap " + (Runtime.getRuntime().totalMemory() >> 20) + " MiB");
            System.exit(4);
        }
    }

    private static boolean answer(ISerializer serializer, ShellMsg message) throws IOException, NoOutputException {
        switch (message.getCommand()) {
            case "exit":
                return false;
            case "spout": // the tuple's first value as a spout's message id
                SpoutMsg spout = new SpoutMsg();
                spout.setCommand("ack");
                spout.setId(message.getTuple().get(0));
                serializer.writeSpoutMsg(spout);
                return true;
            case "tasks":
                serializer.writeTaskIds(Arrays.asList(7, 8, 2000000000));
                return true;
            case "heartbeat": // as Storm's ShellBolt makes one
                BoltMsg heartbeat = new BoltMsg();
                heartbeat.setId("-6917529027641081856");
                heartbeat.setTask(-1);
                heartbeat.setStream("__heartbeat");
                heartbeat.setTuple(new ArrayList<>());
                serializer.writeBoltMsg(heartbeat);
                return true;
            case "buffers":
                byte[] bytes = (byte[]) message.getTuple().get(0);
                ByteBuffer direct = ByteBuffer.allocateDirect(bytes.length);
                direct.put(bytes).flip();
                ByteBuffer part = ByteBuffer.wrap(bytes, 1, bytes.length - 2).slice();
                write(serializer, new ArrayList<>(Arrays.asList(ByteBuffer.wrap(bytes), direct, part, part.asReadOnlyBuffer())));
                return true;
            case "numbers":
                write(serializer, new ArrayList<>(Arrays.asList((byte) -1, (short) 300, 70000, 5000000000L, 1.5f, 2.25, new java.math.BigInteger("18446744073709551615"))));
                return true;
            case "foreign":
                write(serializer, new ArrayList<>(Arrays.asList(new StringBuilder("no value of the protocol"))));
                return true;
            case "huge":
                write(serializer, new ArrayList<>(Arrays.asList(new byte[(int) message.getTask()])));
                return true;
            case "take": // count what comes, and say so at the end
                long count = 0;
                long size = 0;
                ShellMsg next = serializer.readShellMsg();
                while (next.getCommand().equals("emit")) {
                    count++;
                    size += ((byte[]) next.getTuple().get(0)).length;
                    next = serializer.readShellMsg();
                }
                write(serializer, new ArrayList<>(Arrays.asList(count, size)));
                return true;
            case "give": // as many tuples as the id says, of as many bytes as the task says
                List<Object> tuple = new ArrayList<>(Arrays.asList(new byte[(int) message.getTask()]));
                for (long i = 0; i < (Long) message.getId(); i++) {
                    write(serializer, tuple);
                }
                return true;
            default:
                write(serializer, seen(message));
                return true;
        }
    }

    private static List<Object> seen(ShellMsg message) {
        List<Object> kinds = null;
        if (message.getTuple() != null) {
            kinds = new ArrayList<>();
            for (Object value : message.getTuple()) {
                kinds.add(value == null ? "null" : value.getClass().getSimpleName());
            }
        }
        return new ArrayList<>(Arrays.asList(message.getCommand(), message.getId(), message.getMsg(), message.getAnchors(), message.getStream(), message.getTask(),
            message.areTaskIdsNeeded(), message.getMetricName(), message.getMetricParams(), String.valueOf(message.getLogLevel()), message.getTuple(), kinds));
    }

    private static void write(ISerializer serializer, List<Object> tuple) throws IOException {
        BoltMsg message = new BoltMsg();
        message.setId("-9223372036854775808");
        message.setComp("live");
        message.setStream("default");
        message.setTask(3);
        message.setTuple(tuple);
        serializer.writeBoltMsg(message);
    }

    private static Map<String, Object> conf(String[] arguments) {
        Map<String, Object> conf = new HashMap<>();
        conf.put("topology.name", "harness");
        conf.put("topology.debug", false);
        conf.put("topology.workers", 2);
        conf.put("topology.tick.tuple.freq.secs", null);
        conf.put("topology.stats.sample.rate", 0.05);
        conf.put("nimbus.seeds", new ArrayList<>(Arrays.asList("one", "two")));
        conf.put("nested", new HashMap<>(Map.of("umlaut", "\u00e4\u20ac\ud83d\ude00", "long", 1L << 60)));
        for (String argument : Arrays.asList(arguments).subList(2, arguments.length)) {
            String[] setting = argument.split("=");
            conf.put(setting[0], Long.valueOf(setting[1]));
        }
        return conf;
    }

    /** Task 3 is one of two of the bolt "rollups", which reads the spout "live" by partition and feeds the bolt "sink". */
    private static TopologyContext context(String pidDir) {
        StormTopology topology = new StormTopology();
        Grouping byPartition = Grouping.fields(new ArrayList<>(List.of("topic", "partition")));
        topology.put_to_spouts("live", new SpoutSpec(shell(), common(Map.of(), "topic", "partition", "bytes")));
        topology.put_to_bolts("rollups", new Bolt(shell(), common(Map.of(new GlobalStreamId("live", "default"), byPartition), "cells")));
        topology.put_to_bolts("sink", new Bolt(shell(), common(Map.of(new GlobalStreamId("rollups", "default"), Grouping.shuffle(new NullStruct())))));
        topology.set_state_spouts(new HashMap<>());
        Map<Integer, String> tasks = Map.of(1, "__acker", 2, "live", 3, "rollups", 4, "rollups", 5, "sink");
        Map<String, List<Integer>> byComponent = Map.of("__acker", List.of(1), "live", List.of(2), "rollups", List.of(3, 4), "sink", List.of(5));
        Map<String, Map<String, Fields>> fields = Map.of(
            "live", Map.of("default", new Fields("topic", "partition", "bytes")), "rollups", Map.of("default", new Fields("cells")), "sink", Map.of(), "__acker", Map.of());
        return new TopologyContext(topology, new HashMap<>(), tasks, byComponent, fields, new HashMap<>(), "harness-1", "code", pidDir, 3, 6700, List.of(2, 3),
            new HashMap<>(), new HashMap<>(), new HashMap<>(), new HashMap<>(), new AtomicBoolean(), null);
    }

    private static ComponentObject shell() {
        return ComponentObject.shell(new ShellComponent("python3", "component"));
    }

    private static ComponentCommon common(Map<GlobalStreamId, Grouping> inputs, String... fields) {
        Map<String, StreamInfo> streams = new HashMap<>();
        if (fields.length > 0) {
            streams.put("default", new StreamInfo(new ArrayList<>(Arrays.asList(fields)), false));
        }
        return new ComponentCommon(new HashMap<>(inputs), streams);
    }
}
