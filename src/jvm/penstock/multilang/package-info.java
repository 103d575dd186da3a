/**
 * The Java half of streamparse's msgpack multilang serializer: what a Storm worker speaks with the Python processes of its tasks.
 *
 * <p>The Python half is pystorm's {@code MsgpackSerializer}. A message is one MessagePack value, with the keys of Storm's JSON protocol and nothing between
 * two of them; bytes travel as they are, which is the point of it.
 */
package penstock.multilang;
