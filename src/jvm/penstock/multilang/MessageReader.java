package penstock.multilang;

import java.io.FilterInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.storm.multilang.NoOutputException;
import org.msgpack.core.ExtensionTypeHeader;
import org.msgpack.core.MessageFormat;
import org.msgpack.core.MessageInsufficientBufferException;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessagePackException;
import org.msgpack.core.MessageUnpacker;

/**
 * Reads the messages of a subprocess, of which none may take more of the heap than a limit.
 *
 * <p>A length is compared with what is left of the limit before anything is allocated for it, and a list or map counts for more than its bytes, since a
 * megabyte of empty maps would otherwise be some sixty on the heap.
 */
final class MessageReader {
    /** How deep lists and maps may nest: as deep as Python's packer goes. A recursion of that depth fits any thread's stack. */
    private static final int MAX_DEPTH = 511;

    /** What a list or a map, and a place in one, take on the heap, in bytes, about. */
    private static final long CONTAINER = 64;
    private static final long PLACE = 16;

    /** Most of what a list is made for before its elements have come. */
    private static final int AT_FIRST = 1 << 10;

    /** Bytes asked of the pipe at once: two of Linux's pipe buffers. Smaller means more system calls, larger is never filled. */
    private static final int BUFFER = 1 << 17;

    private static final int SHOWN = 200;

    private final Remembering stream;
    private final MessageUnpacker in;
    private long limit;
    private long left;

    MessageReader(InputStream stream, long limit) {
        this.stream = new Remembering(stream);
        this.in = new MessagePack.UnpackerConfig().withBufferSize(BUFFER).newUnpacker(this.stream);
        this.limit = limit;
    }

    void setLimit(long bytes) {
        limit = bytes;
    }

    /**
     * The next message, waited for.
     *
     * @throws NoOutputException if the stream ends, before a message or in one. Storm adds what the subprocess wrote to its standard error, and its exit code.
     * @throws IOException if the bytes are no MessagePack, hold what Java has no value for, or would take more than the limit
     */
    Object read() throws IOException, NoOutputException {
        long start = in.getTotalReadBytes();
        left = limit;
        try {
            return value(0);
        } catch (MessageInsufficientBufferException end) {
            long read = in.getTotalReadBytes() - start;
            throw new NoOutputException("Pipe to subprocess seems to be broken! "
                + (read == 0 ? "No output read.\n" : "It ended in a message, of which at least " + read + " bytes were read.\n")
                + "Serializer Exception:\n", end);
        } catch (MessagePackException corrupt) {
            throw new IOException("The subprocess wrote what is no MessagePack: " + corrupt.getMessage(), corrupt);
        }
    }

    private Object value(int depth) throws IOException {
        MessageFormat format = in.getNextFormat();
        switch (format.getValueType()) {
            case NIL:
                in.unpackNil();
                return null;
            case BOOLEAN:
                return in.unpackBoolean();
            case INTEGER:
                return integer(format);
            case FLOAT:
                return in.unpackDouble();
            case STRING:
                return new String(bytes(in.unpackRawStringHeader()), StandardCharsets.UTF_8);
            case BINARY:
                return bytes(in.unpackBinaryHeader());
            case ARRAY:
                return list(in.unpackArrayHeader(), depth);
            case MAP:
                return map(in.unpackMapHeader(), depth);
            default:
                ExtensionTypeHeader extension = in.unpackExtensionTypeHeader();
                throw new IOException("The subprocess sent a value of MessagePack's extension type " + extension.getType() + ", which Storm has none for");
        }
    }

    private Object integer(MessageFormat format) throws IOException {
        if (format != MessageFormat.UINT64) {
            return in.unpackLong();
        }
        BigInteger unsigned = in.unpackBigInteger();
        if (unsigned.bitLength() < Long.SIZE) {
            return unsigned.longValue();
        }
        return unsigned;
    }

    private byte[] bytes(int length) throws IOException {
        charge(length);
        return in.readPayload(length);
    }

    private List<Object> list(int size, int depth) throws IOException {
        enter(size, depth);
        List<Object> list = new ArrayList<>(Math.min(size, AT_FIRST));
        for (int i = 0; i < size; i++) {
            list.add(value(depth + 1));
        }
        return list;
    }

    /** A plain HashMap: Storm's Kryo has it registered, so that it travels to another worker in a tuple. */
    private Map<String, Object> map(int size, int depth) throws IOException {
        enter(2L * size, depth);
        Map<String, Object> map = new HashMap<>();
        for (int i = 0; i < size; i++) {
            Object key = value(depth + 1);
            if (key instanceof byte[] || key instanceof List || key instanceof Map) {
                throw new IOException("The subprocess sent a map with a key that is no text, but " + shown(key));
            }
            map.put(String.valueOf(key), value(depth + 1));
        }
        return map;
    }

    private void enter(long places, int depth) throws IOException {
        if (depth >= MAX_DEPTH) {
            throw new IOException("The subprocess sent a message whose lists and maps nest deeper than " + MAX_DEPTH);
        }
        charge(CONTAINER + PLACE * places);
    }

    private void charge(long bytes) throws IOException {
        if (bytes > left) {
            throw new IOException("The subprocess announced a message that would take more than the " + limit + " bytes of " + MsgpackSerializer.MAX_FRAME_BYTES);
        }
        left -= bytes;
    }

    /** The beginning of what was last read of the stream, for an error: most likely what something printed. */
    String latest() {
        return new String(stream.head, 0, stream.headLength, StandardCharsets.UTF_8).replaceAll("\\p{Cntrl}", " ");
    }

    /** A value for an error: its kind, and as much of it as a line takes. */
    static String shown(Object value) {
        if (value == null) {
            return "nothing";
        }
        if (value instanceof byte[]) {
            return ((byte[]) value).length + " bytes";
        }
        String text = String.valueOf(value);
        return value.getClass().getSimpleName() + " " + (text.length() <= SHOWN ? text : text.substring(0, SHOWN) + "...");
    }

    /** The stream, and the beginning of what was last read of it. */
    private static final class Remembering extends FilterInputStream {
        private final byte[] head = new byte[SHOWN];
        private int headLength;

        Remembering(InputStream stream) {
            super(stream);
        }

        @Override
        public int read(byte[] into, int offset, int length) throws IOException {
            int read = super.read(into, offset, length);
            if (read > 0) {
                headLength = Math.min(read, SHOWN);
                System.arraycopy(into, offset, head, 0, headLength);
            }
            return read;
        }
    }
}
