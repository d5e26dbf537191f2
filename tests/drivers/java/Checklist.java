import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Runs the cells one after the other, one line for each, and has what they are made of. */
final class Checklist {
    private static final int LIMIT = 20; // seconds, for one cell

    static final List<String> NAMES = List.of(
            "connect", "types", "parameters", "prepared", "pipelining", "transactions", "savepoints", "copy",
            "cancel", "statement_timeout", "notices", "large_rows", "reconnect", "temporary_tables", "settings",
            "role", "listen", "advisory_locks");

    /** One check; what it returns, if anything, is a note that is printed before its line. */
    interface Cell {
        String run(Scope scope) throws Exception;
    }

    /** A check without a note. */
    interface Check {
        void run(Scope scope) throws Exception;
    }

    /** Something that may fail as SQL does. */
    interface Action {
        void run() throws Exception;
    }

    /** A check that {@link #alternate} runs on one of its connections. */
    interface Step {
        void run(Connection connection, int number, int round) throws Exception;
    }

    /** What a cell has opened, closed after it, the last one first. */
    static final class Scope implements AutoCloseable {
        private final Deque<AutoCloseable> open = new ArrayDeque<>();

        <C extends AutoCloseable> C add(C resource) {
            open.push(resource);
            return resource;
        }

        @Override
        public void close() throws Exception {
            for (AutoCloseable resource : open) {
                resource.close();
            }
        }
    }

    @SuppressWarnings("serial")
    private static final class None extends RuntimeException {
        None(String why) {
            super(why);
        }
    }

    private Checklist() {}

    /** The cell of a feature that the driver does not have. */
    static Cell none(String why) {
        return scope -> {
            throw new None(why);
        };
    }

    static Cell plain(Check check) {
        return scope -> {
            check.run(scope);
            return null;
        };
    }

    static void same(Object expected, Object got) {
        if (!Objects.deepEquals(expected, got)) {
            throw new AssertionError(expected + " expected, not " + got);
        }
    }

    /** Checks that the action fails with this SQLSTATE. */
    static SQLException fails(String state, Action action) throws Exception {
        try {
            action.run();
        } catch (SQLException error) {
            if (!state.equals(error.getSQLState())) {
                throw new AssertionError(state + " expected, not " + error.getSQLState(), error);
            }
            return error;
        }
        throw new AssertionError(state + " expected, and no error came");
    }

    /** Executes a statement, with parameters if there are any. */
    static void execute(Connection connection, String sql, Object... parameters) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            bind(statement, parameters);
            statement.execute();
        }
    }

    /** Returns the first column of the only row. */
    static Object value(Connection connection, String sql, Object... parameters) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            return value(statement, parameters);
        }
    }

    static Object value(PreparedStatement statement, Object... parameters) throws SQLException {
        bind(statement, parameters);
        try (ResultSet rows = statement.executeQuery()) {
            same(true, rows.next());
            Object first = rows.getObject(1);
            same(false, rows.next());
            return first;
        }
    }

    private static void bind(PreparedStatement statement, Object... parameters) throws SQLException {
        for (int n = 0; n < parameters.length; n++) {
            statement.setObject(n + 1, parameters[n]);
        }
    }

    /** Runs the action in a transaction, and leaves the connection in autocommit. */
    static void transaction(Connection connection, Action action) throws Exception {
        connection.setAutoCommit(false);
        try {
            action.run();
            connection.commit();
        } catch (Exception | AssertionError error) {
            connection.rollback();
            throw error;
        } finally {
            connection.setAutoCommit(true);
        }
    }

    /**
     * Runs a check on all connections, again and again, in transactions of their own.
     *
     * <p>In each round another one holds a transaction open meanwhile. So behind a pooler in transaction mode all get
     * other servers than in the round before.
     */
    static void alternate(List<Connection> connections, int rounds, Step check) throws Exception {
        for (int count = 0; count < rounds; count++) {
            int round = count;
            int holder = round % connections.size();
            transaction(connections.get(holder), () -> {
                check.run(connections.get(holder), holder, round);
                for (int number = 0; number < connections.size(); number++) {
                    if (number != holder) {
                        check.run(connections.get(number), number, round);
                    }
                }
            });
        }
    }

    private static String reason(Throwable error) {
        StringBuilder text = new StringBuilder();
        for (Throwable link = error; link != null; link = link.getCause()) {
            text.append(text.isEmpty() ? "" : "; ").append(link.getClass().getSimpleName()).append(": ");
            text.append(link.getMessage());
            if (link instanceof SQLException sql) {
                text.append(" (").append(sql.getSQLState()).append(')');
            }
        }
        return text.toString().replaceAll("\\s+", " ");
    }

    private static String line(ExecutorService workers, String name, Cell cell) throws InterruptedException {
        Callable<String> work = () -> {
            try (Scope scope = new Scope()) {
                return cell.run(scope);
            }
        };
        try {
            String note = workers.submit(work).get(LIMIT, TimeUnit.SECONDS);
            return (note == null ? "" : "# " + name + ": " + note + "\n") + "ok " + name;
        } catch (TimeoutException late) {
            return "fail " + name + ": nothing within " + LIMIT + " s";
        } catch (ExecutionException failed) {
            Throwable cause = failed.getCause();
            return cause instanceof None none
                    ? "none " + name + ": " + none.getMessage()
                    : "fail " + name + ": " + reason(cause);
        }
    }

    /** The names on the command line, or, with "-", on standard input line by line, or all. */
    private static Iterable<String> chosen(String... arguments) {
        if (arguments.length == 0) {
            return NAMES;
        }
        return arguments[0].equals("-") ? new BufferedReader(new InputStreamReader(System.in)).lines()::iterator
                : List.of(arguments);
    }

    /** Runs the chosen cells and ends the program. */
    static void run(Map<String, Cell> cells, String... arguments) throws InterruptedException {
        ExecutorService workers = Executors.newCachedThreadPool();
        int status = 0;
        for (String name : chosen(arguments)) {
            String line = line(workers, name, cells.get(name));
            System.out.println(line);
            if (line.startsWith("fail")) {
                status = 1;
            }
        }
        System.exit(status);
    }
}
