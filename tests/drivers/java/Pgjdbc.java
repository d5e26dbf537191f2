import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.SQLWarning;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Timestamp;
import java.time.Instant;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;
import org.postgresql.util.PGobject;

/** The checklist with pgjdbc, settings as they are; where to connect to is in PGHOST, PGPORT, ... */
final class Pgjdbc {
    private static final Map<String, String> ENVIRONMENT = System.getenv();
    static final String USER = ENVIRONMENT.get("PGUSER");
    private static final String URL = String.format(
            "jdbc:postgresql://%s:%s/%s",
            ENVIRONMENT.get("PGHOST"), ENVIRONMENT.get("PGPORT"), ENVIRONMENT.get("PGDATABASE"));

    private Pgjdbc() {}

    static Connection open(Checklist.Scope scope) throws SQLException {
        return open(scope, Map.of());
    }

    static Connection open(Checklist.Scope scope, Map<String, String> settings) throws SQLException {
        Properties properties = new Properties();
        properties.put("user", USER);
        properties.put("password", ENVIRONMENT.get("PGPASSWORD"));
        properties.putAll(settings);
        return scope.add(DriverManager.getConnection(URL, properties));
    }

    static List<Connection> several(Checklist.Scope scope, int count) throws SQLException {
        List<Connection> all = new ArrayList<>();
        while (all.size() < count) {
            all.add(open(scope));
        }
        return all;
    }

    private static void table(Checklist.Scope scope, Connection connection, String name, String columns)
            throws SQLException {
        Checklist.execute(connection, "DROP TABLE IF EXISTS " + name);
        Checklist.execute(connection, "CREATE TABLE " + name + " (" + columns + ")");
        scope.add(() -> Checklist.execute(connection, "DROP TABLE " + name));
    }

    private static void connect(Checklist.Scope scope) throws Exception {
        Connection a = open(scope, Map.of("ApplicationName", "java pgjdbc"));
        Checklist.same(USER, Checklist.value(a, "SELECT current_user"));
        Checklist.same("java pgjdbc", Checklist.value(a, "SHOW application_name"));
        Checklist.same(true, a.isValid(5));
        Checklist.same("PostgreSQL", a.getMetaData().getDatabaseProductName());
        try (ResultSet tables = a.getMetaData().getTables(null, "pg_catalog", "pg_class", null)) {
            Checklist.same(true, tables.next());
        }
        Checklist.fails("28P01", () -> open(scope, Map.of("password", "wrong")));
    }

    private static void types(Checklist.Scope scope) throws Exception {
        Connection a = open(scope);
        String sql = "SELECT 1::int2, 2::int4, 9007199254740993::int8, 1.5::float8, 12.340::numeric, true, 'zwölf €',"
                + " '\\x00ff'::bytea, '2024-02-29 12:00:00.123+00'::timestamptz,"
                + " 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6'::uuid, '{\"a\": [1, null]}'::jsonb, ARRAY[1, NULL, 3],"
                + " ARRAY['a', 'b\"c', NULL], NULL::int";
        try (PreparedStatement statement = a.prepareStatement(sql)) {
            for (int n = 0; n < 8; n++) { // as text at first, in binary once it is prepared
                try (ResultSet row = statement.executeQuery()) {
                    row.next();
                    Checklist.same(1, row.getObject(1));
                    Checklist.same(2, row.getObject(2));
                    Checklist.same(9007199254740993L, row.getObject(3));
                    Checklist.same(1.5, row.getObject(4));
                    Checklist.same(new BigDecimal("12.340"), row.getObject(5));
                    Checklist.same(true, row.getObject(6));
                    Checklist.same("zwölf €", row.getObject(7));
                    Checklist.same(new byte[] {0, -1}, row.getObject(8));
                    Checklist.same(Timestamp.from(Instant.parse("2024-02-29T12:00:00.123Z")), row.getObject(9));
                    Checklist.same(UUID.fromString("f81d4fae-7dec-11d0-a765-00a0c91e6bf6"), row.getObject(10));
                    Checklist.same("{\"a\": [1, null]}", ((PGobject) row.getObject(11)).getValue());
                    Checklist.same(new Integer[] {1, null, 3}, row.getArray(12).getArray());
                    Checklist.same(new String[] {"a", "b\"c", null}, row.getArray(13).getArray());
                    Checklist.same(null, row.getObject(14));
                }
            }
        }
    }

    private static void parameters(Checklist.Scope scope) throws Exception {
        Connection a = open(scope);
        byte[] bytes = new byte[256];
        for (int n = 0; n < bytes.length; n++) {
            bytes[n] = (byte) n;
        }
        OffsetDateTime moment = OffsetDateTime.parse("2024-02-29T12:00:00.123Z");
        String sql = "SELECT ?::int, ?::text, ?::bytea, ?::timestamptz, ?::jsonb ->> 'x', ?::int[], ?::text, ?::bool";
        try (PreparedStatement statement = a.prepareStatement(sql)) {
            for (int n = 0; n < 8; n++) {
                statement.setInt(1, n);
                statement.setString(2, "it's");
                statement.setBytes(3, bytes);
                statement.setObject(4, moment);
                statement.setString(5, "{\"x\": \"y\"}");
                statement.setArray(6, a.createArrayOf("int4", new Integer[] {1, null, 3}));
                statement.setNull(7, java.sql.Types.VARCHAR);
                statement.setBoolean(8, false);
                try (ResultSet row = statement.executeQuery()) {
                    row.next();
                    Checklist.same(n, row.getInt(1));
                    Checklist.same("it's", row.getString(2));
                    Checklist.same(bytes, row.getBytes(3));
                    Checklist.same(moment, row.getObject(4, OffsetDateTime.class));
                    Checklist.same("y", row.getString(5));
                    Checklist.same(new Integer[] {1, null, 3}, row.getArray(6).getArray());
                    Checklist.same(null, row.getString(7));
                    Checklist.same(false, row.getBoolean(8));
                }
            }
        }
        String text = "é".repeat(500_000);
        Checklist.same(text, Checklist.value(a, "SELECT ?::text", text));
        Object[] many = Collections.nCopies(1000, 3).toArray();
        String sum = String.join(" + ", Collections.nCopies(many.length, "?::int"));
        Checklist.same(3000, Checklist.value(a, "SELECT " + sum, many));
        Checklist.fails("22P02", () -> Checklist.value(a, "SELECT ?::int", "seven"));
        Checklist.same(8, Checklist.value(a, "SELECT ?::int", 8));
    }

    private static String prepared(Checklist.Scope scope) throws Exception {
        List<Connection> connections = several(scope, 3);
        List<PreparedStatement> own = new ArrayList<>();
        List<Set<Object>> servers = new ArrayList<>();
        for (Connection connection : connections) {
            // The driver counts the names, so that they are the same on each connection.
            own.add(scope.add(connection.prepareStatement("SELECT ?::int + " + own.size())));
            servers.add(new HashSet<>());
        }
        Checklist.alternate(connections, 30, (connection, number, round) -> {
            int me = number * 1000 + round;
            Checklist.same(me + number, Checklist.value(own.get(number), me));
            Checklist.same("t" + me, Checklist.value(connection, "SELECT ?::text", "t" + me));
            servers.get(number).add(Checklist.value(connection, "SELECT pg_backend_pid()"));
            Checklist.same(round % 7, Checklist.value(connection, "SELECT " + round % 7));
            try (Statement statement = connection.createStatement()) {
                statement.execute("SELECT 1; SELECT 2");
                Checklist.same(true, statement.getMoreResults());
            }
        });
        Connection a = connections.get(0);
        PreparedStatement quotient = scope.add(a.prepareStatement("SELECT 12 / ?::int"));
        for (int n = 0; n < 8; n++) {
            Checklist.same(4, Checklist.value(quotient, 3));
        }
        Checklist.fails("22012", () -> Checklist.value(quotient, 0));
        Checklist.same(3, Checklist.value(quotient, 4));
        for (int n = 0; n < 300; n++) { // its cache has 256 places, and what leaves it is closed
            for (int again = 0; again < 6; again++) {
                Checklist.same(n + again, Checklist.value(a, "SELECT ?::int + " + n, again));
            }
        }
        Checklist.execute(a, "DEALLOCATE ALL"); // the driver forgets its names too
        Checklist.same(3, Checklist.value(quotient, 4));
        squares();
        return "a connection has met " + servers.stream().mapToInt(Set::size).max().orElse(0) + " servers";
    }

    /** Eight threads, each with a connection of its own. */
    private static void squares() throws Exception {
        List<CompletableFuture<Void>> all = new ArrayList<>();
        for (int n = 0; n < 8; n++) {
            int first = n;
            all.add(CompletableFuture.runAsync(() -> {
                try (Checklist.Scope scope = new Checklist.Scope()) {
                    Connection connection = open(scope);
                    for (int factor = first; factor < first + 25; factor++) {
                        Object square = Checklist.value(connection, "SELECT ?::int * ?::int", factor, factor);
                        Checklist.same(factor * factor, square);
                    }
                } catch (Exception error) {
                    throw new IllegalStateException(error);
                }
            }));
        }
        CompletableFuture.allOf(all.toArray(CompletableFuture[]::new)).get();
    }

    /** Batches are what JDBC sends ahead of the answers. */
    private static void pipelining(Checklist.Scope scope) throws Exception {
        Connection a = open(scope);
        table(scope, a, "pgjdbc_pipelining", "n int CHECK (n >= 0)");
        String sql = "INSERT INTO pgjdbc_pipelining VALUES (?)";
        try (PreparedStatement insert = a.prepareStatement(sql)) {
            for (int round = 0; round < 3; round++) {
                for (int n = 0; n < 1000; n++) {
                    insert.setInt(1, n);
                    insert.addBatch();
                }
                Checklist.same(1000, insert.executeBatch().length);
            }
            Checklist.same(3000L, Checklist.value(a, "SELECT count(*) FROM pgjdbc_pipelining"));
            for (int n : new int[] {1, -1, 2}) {
                insert.setInt(1, n);
                insert.addBatch();
            }
            Checklist.fails("23514", insert::executeBatch);
        }
        Checklist.same(3000L, Checklist.value(a, "SELECT count(*) FROM pgjdbc_pipelining"));
        try (Statement mixed = a.createStatement()) {
            mixed.addBatch("INSERT INTO pgjdbc_pipelining VALUES (1)");
            mixed.addBatch("UPDATE pgjdbc_pipelining SET n = n + 1 WHERE n = 1");
            mixed.addBatch("DELETE FROM pgjdbc_pipelining");
            Checklist.same(new int[] {1, 4, 3001}, mixed.executeBatch());
        }
    }

    private static void transactions(Checklist.Scope scope) throws Exception {
        Connection a = open(scope);
        Connection b = open(scope);
        table(scope, a, "pgjdbc_transactions", "n int");
        String count = "SELECT count(*) FROM pgjdbc_transactions";
        for (int n = 0; n < 8; n++) { // COMMIT and ROLLBACK get prepared too
            int before = n;
            Checklist.transaction(a, () -> {
                Checklist.execute(a, "INSERT INTO pgjdbc_transactions VALUES (?)", before);
                Checklist.same((long) before, Checklist.value(b, count));
            });
            Checklist.same(n + 1L, Checklist.value(b, count));
            Checklist.fails("22012", () -> Checklist.transaction(a, () -> {
                Checklist.execute(a, "INSERT INTO pgjdbc_transactions VALUES (3)");
                SQLException error = Checklist.fails("22012", () -> Checklist.execute(a, "SELECT 1 / 0"));
                Checklist.fails("25P02", () -> Checklist.execute(a, "SELECT 1"));
                throw error;
            }));
            Checklist.same(n + 1L, Checklist.value(b, count));
        }
        a.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        a.setReadOnly(true);
        Checklist.alternate(List.of(a, b), 4, (connection, number, round) -> Checklist.same(
                number == 0 ? Connection.TRANSACTION_SERIALIZABLE : Connection.TRANSACTION_READ_COMMITTED,
                connection.getTransactionIsolation()));
        Checklist.fails("25006", () -> Checklist.transaction(a, () ->
                Checklist.execute(a, "INSERT INTO pgjdbc_transactions VALUES (3)")));
        a.setReadOnly(false);
        a.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
    }

    private static void savepoints(Checklist.Scope scope) throws Exception {
        Connection a = open(scope);
        table(scope, a, "pgjdbc_savepoints", "n int PRIMARY KEY");
        Checklist.transaction(a, () -> {
            Checklist.execute(a, "INSERT INTO pgjdbc_savepoints VALUES (1)");
            Savepoint one = a.setSavepoint();
            Checklist.fails("23505", () -> Checklist.execute(a, "INSERT INTO pgjdbc_savepoints VALUES (?)", 1));
            a.rollback(one);
            Savepoint two = a.setSavepoint("two");
            Checklist.execute(a, "INSERT INTO pgjdbc_savepoints VALUES (2)");
            a.releaseSavepoint(two);
        });
        Checklist.same("{1,2}", Checklist.value(a, "SELECT array_agg(n ORDER BY n)::text FROM pgjdbc_savepoints"));
    }

    private static void copy(Checklist.Scope scope) throws Exception {
        Connection a = open(scope);
        table(scope, a, "pgjdbc_copy", "n int, t text");
        CopyManager copies = a.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder rows = new StringBuilder();
        for (int n = 0; n < 20_000; n++) {
            rows.append(n).append("\trow ").append(n).append('\n');
        }
        String in = "COPY pgjdbc_copy FROM STDIN";
        Checklist.same(20_000L, copies.copyIn(in, new StringReader(rows.toString())));
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        Checklist.same(20_000L, copies.copyOut("COPY pgjdbc_copy TO STDOUT", out));
        Checklist.same(rows.toString(), out.toString(StandardCharsets.UTF_8));
        Checklist.fails("22P02", () -> copies.copyIn(in, new StringReader("one\ttwo\n")));
        copies.copyIn(in).cancelCopy();
        Checklist.same(20_000L, Checklist.value(a, "SELECT count(*) FROM pgjdbc_copy"));
    }

    private static void cancel(Checklist.Scope scope) throws Exception {
        Connection a = open(scope);
        Connection b = open(scope);
        String sleeping = "SELECT count(*) FROM pg_stat_activity"
                + " WHERE query LIKE '%pg_sleep(15) AS pgjdbc' AND wait_event = 'PgSleep'";
        try (Statement slow = a.createStatement()) {
            CompletableFuture<SQLException> ended = CompletableFuture.supplyAsync(() -> {
                try {
                    slow.execute("SELECT pg_sleep(15) AS pgjdbc");
                    return null;
                } catch (SQLException error) {
                    return error;
                }
            });
            while (!Checklist.value(b, sleeping).equals(1L)) {
                Thread.onSpinWait();
            }
            slow.cancel();
            Checklist.same("57014", ended.get(10, TimeUnit.SECONDS).getSQLState());
        }
        Checklist.same(1, Checklist.value(a, "SELECT 1"));
        try (Statement slow = a.createStatement()) {
            slow.setQueryTimeout(1); // the driver's own clock, then a cancel request
            Checklist.fails("57014", () -> slow.execute("SELECT pg_sleep(15)"));
        }
        Checklist.same(2, Checklist.value(a, "SELECT 2"));
    }

    private static void notices(Checklist.Scope scope) throws Exception {
        Connection a = open(scope);
        List<String> seen = new ArrayList<>();
        try (Statement statement = a.createStatement()) {
            statement.execute("DO $$ BEGIN RAISE NOTICE 'hear %', 'me'; RAISE WARNING 'and this'; END $$");
            for (SQLWarning one = statement.getWarnings(); one != null; one = one.getNextWarning()) {
                seen.add(one.getSQLState() + " " + one.getMessage());
            }
        }
        Checklist.same(List.of("00000 hear me", "01000 and this"), seen);
    }

    private static void largeRows(Checklist.Scope scope) throws Exception {
        Connection a = open(scope);
        String large = "0123456789".repeat(500_000);
        Checklist.same(large, Checklist.value(a, "SELECT repeat('0123456789', 500000)"));
        Checklist.same(1_250_025_000L, sum(a, 0, "SELECT n, md5(n::text) FROM generate_series(1, 50000) AS n"));
        Checklist.transaction(a, () -> // in portions, from a portal
                Checklist.same(12_502_500L, sum(a, 700, "SELECT n FROM generate_series(1, 5000) AS n")));
        Checklist.transaction(a, () -> {
            try (Statement statement = a.createStatement()) {
                statement.setFetchSize(10);
                ResultSet rows = statement.executeQuery("SELECT n FROM generate_series(1, 5000) AS n");
                Checklist.same(true, rows.next()); // the other rows are never fetched
            }
        });
        Checklist.same(1, Checklist.value(a, "SELECT 1"));
    }

    private static long sum(Connection connection, int portion, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(portion);
            try (ResultSet rows = statement.executeQuery(sql)) {
                long sum = 0;
                while (rows.next()) {
                    sum += rows.getInt(1);
                }
                return sum;
            }
        }
    }

    private static void reconnect(Checklist.Scope scope) throws Exception {
        Connection a = open(scope);
        Connection b = open(scope);
        a.setAutoCommit(false);
        Object pid = Checklist.value(a, "SELECT pg_backend_pid()");
        Checklist.same(true, Checklist.value(b, "SELECT pg_terminate_backend(?, 5000)", pid));
        try {
            Checklist.execute(a, "SELECT 1");
            throw new AssertionError("a lost connection expected");
        } catch (SQLException error) {
            Checklist.same(true, error.getSQLState().matches("57P01|08..."));
        }
        Checklist.same(false, a.isValid(5));
        Checklist.same(1, Checklist.value(open(scope), "SELECT 1"));
        Checklist.same(2, Checklist.value(b, "SELECT 2"));
    }

    public static void main(String[] arguments) throws InterruptedException {
        Checklist.run(Map.ofEntries(
                Map.entry("connect", Checklist.plain(Pgjdbc::connect)),
                Map.entry("types", Checklist.plain(Pgjdbc::types)),
                Map.entry("parameters", Checklist.plain(Pgjdbc::parameters)),
                Map.entry("prepared", Pgjdbc::prepared),
                Map.entry("pipelining", Checklist.plain(Pgjdbc::pipelining)),
                Map.entry("transactions", Checklist.plain(Pgjdbc::transactions)),
                Map.entry("savepoints", Checklist.plain(Pgjdbc::savepoints)),
                Map.entry("copy", Checklist.plain(Pgjdbc::copy)),
                Map.entry("cancel", Checklist.plain(Pgjdbc::cancel)),
                Map.entry("statement_timeout", Checklist.plain(SessionState::statementTimeout)),
                Map.entry("notices", Checklist.plain(Pgjdbc::notices)),
                Map.entry("large_rows", Checklist.plain(Pgjdbc::largeRows)),
                Map.entry("reconnect", Checklist.plain(Pgjdbc::reconnect)),
                Map.entry("temporary_tables", Checklist.plain(SessionState::temporaryTables)),
                Map.entry("settings", Checklist.plain(SessionState::settings)),
                Map.entry("role", Checklist.plain(SessionState::role)),
                Map.entry("listen", Checklist.plain(SessionState::listen)),
                Map.entry("advisory_locks", Checklist.plain(SessionState::advisoryLocks)),
                Map.entry("console", Checklist.plain(AdminConsole::console))), arguments); // of a pooler
    }
}
