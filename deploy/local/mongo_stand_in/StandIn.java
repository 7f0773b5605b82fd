import de.bwaldvogel.mongo.MongoDatabase;
import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.AbstractUniqueIndex;
import de.bwaldvogel.mongo.backend.Index;
import de.bwaldvogel.mongo.backend.IndexKey;
import de.bwaldvogel.mongo.backend.KeyValue;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.backend.h2.H2Database;
import de.bwaldvogel.mongo.backend.h2.H2UniqueIndex;
import de.bwaldvogel.mongo.bson.Document;
import de.bwaldvogel.mongo.wire.message.MongoMessage;
import java.net.InetSocketAddress;
import java.util.List;
import java.util.Map.Entry;
import java.util.Set;
import org.h2.mvstore.MVMap;
import org.h2.mvstore.MVStore;

/** StandIn PORT FILE: MongoDB's wire protocol on loopback, over a file of H2. */
public class StandIn {
    public static void main(String[] arguments) throws Exception {
        var backend = new Durable(new MVStore.Builder().fileName(arguments[1]).autoCommitDisabled().open());
        // All versions of 1.47 say wire 8 (MongoDB 4.2), which PyMongo 4.20 refuses: it wants 9.
        backend.version(new MongoVersion() {
            public List<Integer> getVersionArray() { return List.of(5, 0, 0); }
            public int getWireVersion() { return 13; }
        });
        var server = new MongoServer(backend);
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdownNow));
        server.bind(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])));
        Thread.currentThread().join();
    }

    /**
     * What was acknowledged is in the file. H2 alone commits each second, in the middle of whatever is written then:
     * after kill -9 a document can be there without its entry in the index, or be gone while a later one is there.
     */
    static class Durable extends H2Backend {
        private static final Set<String> READS = Set.of("find", "getMore", "count", "distinct", "aggregate", "ismaster",
            "isMaster", "ping", "listCollections", "listIndexes", "endSessions", "buildInfo", "killCursors");

        Durable(MVStore store) { super(store); }

        @Override public Document handleMessage(MongoMessage message) {
            if (READS.contains(message.getDocument().keySet().iterator().next())) return super.handleMessage(message);
            synchronized (this) {
                try { return super.handleMessage(message); } finally { commit(); }
            }
        }

        @Override protected MongoDatabase openOrCreateDatabase(String name) {
            return new H2Database(name, getMvStore(), getCursorRegistry()) {
                @Override protected Index<Object> openOrCreateUniqueIndex(
                        String collection, String index, List<IndexKey> keys, boolean sparse) {
                    var made = super.openOrCreateUniqueIndex(collection, index, keys, sparse);
                    return index.equals("_id_") ? new ById(made, keys) : made;
                }
            };
        }
    }

    /** The index of _id, also for a query that has more than the _id: H2's own reads all documents then. */
    static class ById extends AbstractUniqueIndex<Object> {
        private final MVMap<KeyValue, Object> map;

        @SuppressWarnings("unchecked")
        ById(Index<Object> made, List<IndexKey> keys) {
            super("_id_", keys, false);
            try {
                var field = H2UniqueIndex.class.getDeclaredField("mvMap");
                field.setAccessible(true);
                map = (MVMap<KeyValue, Object>) field.get(made);
            } catch (ReflectiveOperationException changed) {
                throw new IllegalStateException(changed);
            }
        }

        @Override public synchronized boolean canHandle(Document query) {
            return query.get("_id") instanceof String || super.canHandle(query);
        }

        @Override protected Object removeDocument(KeyValue key) { return map.remove(key); }
        @Override protected Object getPosition(KeyValue key) { return map.get(key); }
        @Override protected Iterable<Entry<KeyValue, Object>> getIterable() { return map.entrySet(); }
        @Override protected boolean putKeyPosition(KeyValue key, Object position) {
            return map.putIfAbsent(key, position) == null;
        }
        @Override public long getCount() { return map.sizeAsLong(); }
        @Override public boolean isEmpty() { return map.isEmpty(); }
        @Override public long getDataSize() { return getCount(); }
    }
}
