import java.sql.Connection;
import java.util.ArrayList;
import java.util.List;

import org.postgresql.PGConnection;
import org.postgresql.PGNotification;

/** What a session keeps: it must be there in later transactions, and nobody else may have it. */
final class SessionState {
    private SessionState() {}

    static void statementTimeout(Checklist.Scope scope) throws Exception {
        List<Connection> both = Pgjdbc.several(scope, 2);
        Connection a = both.get(0);
        Checklist.execute(a, "SET statement_timeout = '150ms'");
        Checklist.alternate(both, 8, (connection, number, round) ->
                Checklist.same(number == 0 ? "150ms" : "0", Checklist.value(connection, "SHOW statement_timeout")));
        Checklist.transaction(both.get(1), () -> {
            Checklist.execute(both.get(1), "SELECT 1");
            Checklist.fails("57014", () -> Checklist.execute(a, "SELECT pg_sleep(15)"));
        });
        Checklist.fails("57014", () -> Checklist.transaction(a, () ->
                Checklist.execute(a, "SELECT pg_sleep(?)", 15.0)));
        Checklist.execute(a, "RESET statement_timeout");
        Checklist.same("0", Checklist.value(a, "SHOW statement_timeout"));
    }

    static void temporaryTables(Checklist.Scope scope) throws Exception {
        List<Connection> connections = Pgjdbc.several(scope, 3);
        Checklist.execute(connections.get(0), "CREATE TEMPORARY TABLE pgjdbc_temporary (n int)");
        Checklist.execute(connections.get(1), "CREATE TEMPORARY TABLE pgjdbc_temporary (n int)");
        Checklist.alternate(connections, 9, (connection, number, round) -> {
            if (number == 2) {
                Checklist.same(null, Checklist.value(connection, "SELECT to_regclass('pgjdbc_temporary')"));
                return;
            }
            int step = number == 0 ? 1 : 100;
            Checklist.execute(connection, "INSERT INTO pgjdbc_temporary VALUES (?)", step);
            long sum = (long) step * (round + 1);
            Checklist.same(sum, Checklist.value(connection, "SELECT sum(n) FROM pgjdbc_temporary"));
        });
        Checklist.execute(connections.get(0), "DROP TABLE pgjdbc_temporary");
        Checklist.execute(connections.get(1), "DROP TABLE pgjdbc_temporary");
    }

    static void settings(Checklist.Scope scope) throws Exception {
        List<Connection> connections = Pgjdbc.several(scope, 3);
        String show = "SELECT current_setting('search_path') || ' ' || current_setting('timezone') || ' '"
                + " || current_setting('application_name')";
        List<String> expected = new ArrayList<>(List.of(
                "pg_catalog Asia/Tokyo first", "public America/Lima second"));
        for (int n = 0; n < 2; n++) {
            String[] own = expected.get(n).split(" ");
            Connection connection = connections.get(n);
            Checklist.transaction(connection, () -> {
                connection.setSchema(own[0]);
                Checklist.execute(connection, "SET TIME ZONE '" + own[1] + "'");
            });
            connection.setClientInfo("ApplicationName", own[2]);
        }
        expected.add((String) Checklist.value(connections.get(2), show));
        Checklist.same(true, expected.get(2).endsWith(" PostgreSQL JDBC Driver"));
        Checklist.alternate(connections, 12, (connection, number, round) ->
                Checklist.same(expected.get(number), Checklist.value(connection, show)));
    }

    static void role(Checklist.Scope scope) throws Exception {
        List<Connection> both = Pgjdbc.several(scope, 2);
        Checklist.execute(both.get(0), "SET ROLE pg_read_all_stats");
        Checklist.alternate(both, 8, (connection, number, round) -> Checklist.same(
                number == 0 ? "pg_read_all_stats" : Pgjdbc.USER, Checklist.value(connection, "SELECT current_user")));
        Checklist.execute(both.get(0), "RESET ROLE");
        Checklist.same(Pgjdbc.USER, Checklist.value(both.get(0), "SELECT current_user"));
    }

    static void listen(Checklist.Scope scope) throws Exception {
        Connection a = Pgjdbc.open(scope);
        Connection b = Pgjdbc.open(scope);
        Checklist.execute(a, "LISTEN pgjdbc");
        for (String payload : List.of("one", "zwölf")) {
            Checklist.execute(b, "SELECT pg_notify(?, ?)", "pgjdbc", payload);
            PGNotification[] got = a.unwrap(PGConnection.class).getNotifications(5000);
            Checklist.same(1, got.length);
            Checklist.same("pgjdbc", got[0].getName());
            Checklist.same(payload, got[0].getParameter());
            Checklist.same(1, Checklist.value(a, "SELECT 1"));
        }
        Checklist.execute(a, "UNLISTEN pgjdbc");
    }

    static void advisoryLocks(Checklist.Scope scope) throws Exception {
        List<Connection> both = Pgjdbc.several(scope, 2);
        long key = ProcessHandle.current().pid();
        String take = "SELECT pg_try_advisory_lock(?)";
        String unlock = "SELECT pg_advisory_unlock(?)";
        Checklist.execute(both.get(0), "SELECT pg_advisory_lock(?)", key);
        Checklist.alternate(both, 8, (connection, number, round) -> {
            Checklist.same(number == 0, Checklist.value(connection, take, key));
            if (number == 0) {
                Checklist.same(true, Checklist.value(connection, unlock, key)); // once for each time it was taken
            }
        });
        Checklist.same(true, Checklist.value(both.get(0), unlock, key));
        Checklist.same(true, Checklist.value(both.get(1), take, key));
        Checklist.same(true, Checklist.value(both.get(1), unlock, key));
    }
}
