package penstock.multilang;

import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.storm.generated.GlobalStreamId;
import org.apache.storm.generated.Grouping;
import org.apache.storm.task.TopologyContext;

/** The first message to a subprocess: where to leave its pid file, the topology's settings, and where in the topology it stands. */
final class Handshake {
    private Handshake() {
    }

    static Map<String, Object> message(Map<String, Object> conf, TopologyContext context) {
        Map<String, Object> message = new HashMap<>();
        message.put("pidDir", context.getPIDDir());
        message.put("conf", plain(conf));
        message.put("context", describe(context));
        return message;
    }

    /** What {@link TopologyContext#toJSONString} says, which is what components written for Storm's JsonSerializer read. */
    private static Map<String, Object> describe(TopologyContext context) {
        Map<String, Object> targets = new HashMap<>();
        context.getThisTargets().forEach((stream, groupings) -> {
            Map<String, Object> byTarget = new HashMap<>();
            groupings.forEach((target, grouping) -> byTarget.put(target, describe(grouping)));
            targets.put(stream, byTarget);
        });
        Map<String, Map<String, Object>> sources = new HashMap<>();
        for (Map.Entry<GlobalStreamId, Grouping> source : context.getThisSources().entrySet()) {
            sources.computeIfAbsent(source.getKey().get_componentId(), component -> new HashMap<>())
                .put(source.getKey().get_streamId(), describe(source.getValue()));
        }
        Map<String, Object> description = new HashMap<>();
        description.put("task->component", context.getTaskToComponent());
        description.put("taskid", context.getThisTaskId());
        description.put("componentid", context.getThisComponentId());
        description.put("streams", context.getThisStreams());
        description.put("stream->outputfields", context.getThisOutputFieldsForStreams());
        description.put("stream->target->grouping", targets);
        description.put("source->stream->grouping", sources);
        description.put("source->stream->fields", context.getThisInputFields());
        return description;
    }

    private static Map<String, Object> describe(Grouping grouping) {
        Map<String, Object> description = new HashMap<>();
        description.put("type", grouping.getSetField().toString());
        if (grouping.is_set_fields()) {
            description.put("fields", grouping.get_fields());
        }
        return description;
    }

    /**
     * Settings as plain values. They come from JSON and YAML, but a plug-in of the cluster may put an object among them, and one that no component has asked
     * for must not keep a topology from starting: it goes as its text.
     */
    private static Object plain(Object value) {
        if (value instanceof Map) {
            Map<String, Object> copy = new HashMap<>();
            ((Map<?, ?>) value).forEach((key, inner) -> copy.put(String.valueOf(key), plain(inner)));
            return copy;
        }
        if (value instanceof Collection) {
            List<Object> copy = new ArrayList<>();
            ((Collection<?>) value).forEach(inner -> copy.add(plain(inner)));
            return copy;
        }
        boolean known = value == null || value instanceof String || value instanceof Boolean || value instanceof Long || value instanceof Integer
            || value instanceof Double || value instanceof Float || value instanceof Short || value instanceof Byte;
        return known ? value : value.toString();
    }
}
