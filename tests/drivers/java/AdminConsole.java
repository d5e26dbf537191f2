import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** The admin console with pgjdbc, in each way that it has to send a query. */
final class AdminConsole {
    private AdminConsole() {}

    static void console(Checklist.Scope scope) throws Exception {
        for (String mode : List.of("extended", "extendedForPrepared", "extendedCacheEverything", "simple")) {
            Connection a = Pgjdbc.open(scope, Map.of("preferQueryMode", mode));
            Checklist.same(true, a.isValid(5));
            for (int n = 0; n < 8; n++) { // as text at first, in binary once it is prepared
                look(a);
            }
            set(a);
            SQLException unknown = Checklist.fails("08P01", () -> Checklist.execute(a, "PAUSE ?", "no db"));
            Checklist.same(true, unknown.getMessage().contains("no such database: no db"));
            Checklist.fails("08P01", () -> Checklist.value(a, "SHOW NOTHING"));
            Checklist.transaction(a, () -> Checklist.execute(a, "RECONNECT"));
        }
    }

    private static void look(Connection connection) throws SQLException {
        Checklist.same("yes", shown(connection, "SHOW STATE", 2).get("active"));
        Checklist.same(2, shown(connection, "SHOW LISTS", 2).get("databases"));
        Checklist.same(2, shown(connection, "SHOW DATABASES", 6).get("pgbouncer"));
        Checklist.same(BigDecimal.ZERO, shown(connection, "SHOW TOTALS", 2).get("total_xact_time"));
    }

    /** Returns a column of a table by the table's first. */
    private static Map<String, Object> shown(Connection connection, String sql, int column) throws SQLException {
        Map<String, Object> found = new HashMap<>();
        try (PreparedStatement statement = connection.prepareStatement(sql);
                ResultSet rows = statement.executeQuery()) {
            while (rows.next()) {
                found.put(rows.getString(1), rows.getObject(column));
            }
        }
        return found;
    }

    private static void set(Connection connection) throws SQLException {
        Checklist.execute(connection, "SET query_wait_timeout = ?", "79");
        try (Statement statement = connection.createStatement()) {
            Checklist.same(false, statement.execute("SET query_wait_timeout = 80"));
        }
        Checklist.same("80", shown(connection, "SHOW CONFIG", 2).get("query_wait_timeout"));
    }
}
