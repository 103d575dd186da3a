package penstock.multilang;

import java.io.IOException;
import java.io.OutputStream;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.util.Collection;
import java.util.Map;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessagePacker;

/**
 * Writes messages to a subprocess. Bytes go from their array to the pipe without a copy; what comes before them is gathered in a small buffer.
 *
 * <p>A message that is refused half-way leaves the stream without meaning. Storm ends the worker for the exception, and the subprocess with it.
 */
final class MessageWriter {
    private final MessagePacker out;
    private long limit;
    private long start;

    MessageWriter(OutputStream stream, long limit) {
        this.out = MessagePack.newDefaultPacker(stream);
        this.limit = limit;
    }

    void setLimit(long bytes) {
        limit = bytes;
    }

    /**
     * Write one message, and flush it.
     *
     * @throws IOException if the pipe is broken, a value is of a class that the protocol has no value for, or the message is larger than the limit
     */
    void write(Object message) throws IOException {
        start = out.getTotalWrittenBytes();
        pack(message);
        out.flush();
    }

    private void pack(Object value) throws IOException {
        if (value == null) {
            out.packNil();
        } else if (value instanceof String) {
            check(((String) value).length());
            out.packString((String) value);
        } else if (value instanceof byte[]) {
            packBytes((byte[]) value, 0, ((byte[]) value).length);
        } else if (value instanceof ByteBuffer) {
            packBuffer((ByteBuffer) value);
        } else if (value instanceof Boolean) {
            out.packBoolean((Boolean) value);
        } else if (value instanceof Number) {
            packNumber((Number) value);
        } else if (value instanceof Map) {
            Map<?, ?> map = (Map<?, ?>) value;
            out.packMapHeader(map.size());
            for (Map.Entry<?, ?> entry : map.entrySet()) {
                pack(String.valueOf(entry.getKey())); // as in JSON; pystorm's reader refuses a key that is no text
                pack(entry.getValue());
            }
        } else if (value instanceof Collection) {
            Collection<?> list = (Collection<?>) value;
            check(list.size());
            out.packArrayHeader(list.size());
            for (Object element : list) {
                pack(element);
            }
        } else {
            throw new IOException("A tuple holds a " + value.getClass().getName() + ", which the multilang protocol has no value for");
        }
    }

    private void packNumber(Number number) throws IOException {
        if (number instanceof Long || number instanceof Integer || number instanceof Short || number instanceof Byte) {
            out.packLong(number.longValue());
        } else if (number instanceof Double || number instanceof Float) {
            out.packDouble(number.doubleValue());
        } else if (number instanceof BigInteger) {
            BigInteger integer = (BigInteger) number;
            if (integer.bitLength() > (integer.signum() < 0 ? Long.SIZE - 1 : Long.SIZE)) {
                throw new IOException("A tuple holds the integer " + integer + ", which is beyond MessagePack's 64 bits");
            }
            out.packBigInteger(integer);
        } else {
            throw new IOException("A tuple holds a " + number.getClass().getName() + ", which the multilang protocol has no value for");
        }
    }

    private void packBuffer(ByteBuffer buffer) throws IOException {
        if (buffer.hasArray()) {
            packBytes(buffer.array(), buffer.arrayOffset() + buffer.position(), buffer.remaining());
        } else {
            byte[] copy = new byte[buffer.remaining()];
            buffer.duplicate().get(copy);
            packBytes(copy, 0, copy.length);
        }
    }

    private void packBytes(byte[] bytes, int offset, int length) throws IOException {
        check(length);
        out.packBinaryHeader(length);
        out.writePayload(bytes, offset, length);
    }

    private void check(long more) throws IOException {
        long size = out.getTotalWrittenBytes() - start + more;
        if (size > limit) {
            throw new IOException("A message of " + size + " bytes or more is larger than the " + limit + " of " + MsgpackSerializer.MAX_FRAME_BYTES);
        }
    }
}
