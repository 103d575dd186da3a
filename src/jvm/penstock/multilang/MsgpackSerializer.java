package penstock.multilang;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.storm.multilang.BoltMsg;
import org.apache.storm.multilang.ISerializer;
import org.apache.storm.multilang.NoOutputException;
import org.apache.storm.multilang.ShellMsg;
import org.apache.storm.multilang.SpoutMsg;
import org.apache.storm.task.TopologyContext;

/**
 * Storm's multilang protocol in MessagePack; name it in {@code topology.multilang.serializer}.
 *
 * <p>The messages are those of Storm's own JsonSerializer, key for key. Values: null, boolean, integer (64 bits, signed or not), floating point, text, bytes,
 * list and map with keys that are text. Heartbeats are ordinary messages to a bolt, and a bolt's answer to one is the command {@code sync}.
 *
 * <p>Storm reads and writes from different threads, each always the same; the two directions share nothing after {@link #connect}.
 */
public final class MsgpackSerializer implements ISerializer {
    /**
     * The topology setting that bounds a message, in bytes, in either direction. More than pystorm's reader takes (100 MiB, its msgpack's default) is of no
     * use; less protects the worker's heap.
     */
    public static final String MAX_FRAME_BYTES = "penstock.multilang.max.frame.bytes";

    /** What bounds a message without the setting: below pystorm's limit by more than the megabyte that it reads at a time. */
    public static final long DEFAULT_MAX_FRAME_BYTES = 96L << 20;

    private static final long serialVersionUID = 1L;

    private transient MessageWriter writer;
    private transient MessageReader reader;

    /** Storm makes one by name for each task. */
    public MsgpackSerializer() {
    }

    @Override
    public void initialize(OutputStream processIn, InputStream processOut) {
        writer = new MessageWriter(processIn, DEFAULT_MAX_FRAME_BYTES);
        reader = new MessageReader(processOut, DEFAULT_MAX_FRAME_BYTES);
    }

    @Override
    public Number connect(Map<String, Object> conf, TopologyContext context) throws IOException, NoOutputException {
        Object limit = conf.get(MAX_FRAME_BYTES);
        if (limit != null) {
            if (!(limit instanceof Number) || ((Number) limit).longValue() <= 0) {
                throw new IllegalArgumentException(MAX_FRAME_BYTES + " is " + limit + ": it is a number of bytes above 0");
            }
            writer.setLimit(((Number) limit).longValue());
            reader.setLimit(((Number) limit).longValue());
        }
        writer.write(Handshake.message(conf, context));
        Object pid = message().get("pid");
        if (!(pid instanceof Number)) {
            throw new IOException("The subprocess answered the handshake without its pid, but with " + MessageReader.shown(pid));
        }
        return (Number) pid;
    }

    @Override
    public ShellMsg readShellMsg() throws IOException, NoOutputException {
        Map<?, ?> message = message();
        ShellMsg shell = new ShellMsg();
        String command = get(message, "command", String.class);
        shell.setCommand(command);
        shell.setId(message.get("id"));
        shell.setMsg(get(message, "msg", String.class));
        String stream = get(message, "stream", String.class);
        shell.setStream(stream == null ? "default" : stream);
        Number task = get(message, "task", Number.class);
        shell.setTask(task == null ? 0 : task.longValue());
        Boolean needTaskIds = get(message, "need_task_ids", Boolean.class);
        shell.setNeedTaskIds(needTaskIds == null || needTaskIds);
        List<?> tuple = get(message, "tuple", List.class);
        shell.setTuple(tuple == null ? null : new ArrayList<>(tuple));
        Object anchors = message.get("anchors");
        if (anchors instanceof String) {
            shell.addAnchor((String) anchors);
        } else if (anchors != null) {
            for (Object anchor : get(message, "anchors", List.class)) {
                if (!(anchor instanceof String)) {
                    throw unexpected("anchors", "a list of texts", anchor);
                }
                shell.addAnchor((String) anchor);
            }
        }
        shell.setMetricName(message.get("name") instanceof String ? (String) message.get("name") : null);
        shell.setMetricParams(message.get("params"));
        if ("log".equals(command) && message.get("level") instanceof Number) {
            shell.setLogLevel(((Number) message.get("level")).intValue());
        }
        return shell;
    }

    @Override
    public void writeBoltMsg(BoltMsg message) throws IOException {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("id", message.getId());
        fields.put("comp", message.getComp());
        fields.put("stream", message.getStream());
        fields.put("task", message.getTask());
        fields.put("tuple", message.getTuple());
        writer.write(fields);
    }

    @Override
    public void writeSpoutMsg(SpoutMsg message) throws IOException {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("command", message.getCommand());
        fields.put("id", message.getId());
        writer.write(fields);
    }

    @Override
    public void writeTaskIds(List<Integer> taskIds) throws IOException {
        writer.write(taskIds);
    }

    private Map<?, ?> message() throws IOException, NoOutputException {
        Object message = reader.read();
        if (message instanceof Map) {
            return (Map<?, ?>) message;
        }
        throw new IOException("The subprocess wrote what is no multilang message, but " + MessageReader.shown(message)
            + ". Does something in it print to its standard output, which the protocol owns? The last that came begins: " + reader.latest());
    }

    private static <T> T get(Map<?, ?> message, String key, Class<T> type) throws IOException {
        Object value = message.get(key);
        if (value != null && !type.isInstance(value)) {
            throw unexpected(key, type.getSimpleName(), value);
        }
        return type.cast(value);
    }

    private static IOException unexpected(String key, String wanted, Object value) {
        return new IOException("The subprocess sent a message whose '" + key + "' is " + MessageReader.shown(value) + ", not " + wanted);
    }
}
