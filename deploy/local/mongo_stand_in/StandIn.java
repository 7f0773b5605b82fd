import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import java.net.InetSocketAddress;
import java.util.List;

/** StandIn PORT FILE: MongoDB's wire protocol on loopback, over a file of H2. */
public class StandIn {
    public static void main(String[] arguments) throws Exception {
        var backend = new H2Backend(arguments[1]);
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
}
