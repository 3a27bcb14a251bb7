// pgjdbc through the proxy: every step must give what PostgreSQL gives.

import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Timestamp;
import java.util.Properties;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;

public class Pgjdbc {
    static void check(boolean right, Object got) {
        if (!right) throw new AssertionError(String.valueOf(got));
    }

    public static void main(String[] args) throws Exception {
        // Once with its defaults, once with prepared statements from the first time on and binary.
        for (String threshold : new String[] {"5", "1", "-1"}) {
            Properties properties = new Properties();
            properties.setProperty("user", args[1]);
            if (args.length > 2) properties.setProperty("password", args[2]);
            properties.setProperty("prepareThreshold", threshold);
            try (Connection c = DriverManager.getConnection(args[0], properties)) {
                use(c, args, properties);
            }
        }
        System.out.println("ok");
    }

    static void use(Connection c, String[] args, Properties properties) throws Exception {
        try (Statement s = c.createStatement()) {
            s.execute("DROP TABLE IF EXISTS java; CREATE TABLE java (id int PRIMARY KEY, note text, tags text[], amount numeric, at timestamptz, raw bytea)");
        }
        Timestamp at = Timestamp.valueOf("2024-02-29 12:30:01.123456");
        BigDecimal amount = new BigDecimal("12345678901234.56789");
        try (PreparedStatement p = c.prepareStatement("INSERT INTO java VALUES (?, ?, ?, ?, ?, ?)")) {
            p.setInt(1, 1);
            p.setString(2, "it's ünïcode");
            p.setArray(3, c.createArrayOf("text", new Object[] {"a", "b\"c", null}));
            p.setBigDecimal(4, amount);
            p.setTimestamp(5, at);
            p.setBytes(6, new byte[] {0, -1});
            check(p.executeUpdate() == 1, "insert");
        }
        try (PreparedStatement p = c.prepareStatement("SELECT * FROM java WHERE id = ?")) {
            for (int round = 0; round < 10; round++) {
                p.setInt(1, 1);
                try (ResultSet r = p.executeQuery()) {
                    check(r.next(), "a row");
                    check(r.getString(2).equals("it's ünïcode"), r.getString(2));
                    Object[] tags = (Object[]) r.getArray(3).getArray();
                    check(tags.length == 3 && tags[1].equals("b\"c") && tags[2] == null, tags);
                    check(r.getBigDecimal(4).equals(amount), r.getBigDecimal(4));
                    check(r.getTimestamp(5).equals(at), r.getTimestamp(5));
                    check(r.getBytes(6)[1] == -1, "bytes");
                }
            }
        }
        // A batch, a transaction with a savepoint, errors.
        c.setAutoCommit(false);
        try (PreparedStatement p = c.prepareStatement("INSERT INTO java (id) VALUES (?)")) {
            for (int id = 10; id < 310; id++) {
                p.setInt(1, id);
                p.addBatch();
            }
            check(p.executeBatch().length == 300, "batch");
        }
        Savepoint savepoint = c.setSavepoint();
        try (Statement s = c.createStatement()) {
            s.executeUpdate("INSERT INTO java (id) VALUES (10)");
            throw new AssertionError("a double key");
        } catch (SQLException error) {
            check(error.getSQLState().equals("23505"), error);
        }
        c.rollback(savepoint);
        // A result in steps: portals with a row limit.
        try (PreparedStatement p = c.prepareStatement("SELECT id FROM java ORDER BY id")) {
            p.setFetchSize(25);
            int rows = 0;
            try (ResultSet r = p.executeQuery()) {
                while (r.next()) rows++;
            }
            check(rows == 301, rows);
        }
        c.rollback();
        c.setAutoCommit(true);
        // COPY both ways.
        CopyManager copy = c.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder lines = new StringBuilder();
        for (int n = 1000; n < 3000; n++) lines.append(n).append("\tnote ").append(n).append('\n');
        check(copy.copyIn("COPY java (id, note) FROM STDIN", new StringReader(lines.toString())) == 2000, "copy in");
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        copy.copyOut("COPY (SELECT id, note FROM java WHERE id >= 1000 ORDER BY id) TO STDOUT", out);
        check(out.toString("UTF-8").equals(lines.toString()), "copy out");
        // Notifications.
        try (Statement s = c.createStatement()) {
            s.execute("LISTEN java_news");
        }
        try (Connection other = DriverManager.getConnection(args[0], properties); Statement s = other.createStatement()) {
            s.execute("NOTIFY java_news, 'hello'");
            PGNotification[] heard = c.unwrap(PGConnection.class).getNotifications(20_000);
            check(heard != null && heard[0].getParameter().equals("hello"), heard);
            // Cancelled by the driver's own timer.
            s.setQueryTimeout(1);
            try {
                s.execute("SELECT pg_sleep(60)");
                throw new AssertionError("too long");
            } catch (SQLException error) {
                check(error.getSQLState().equals("57014"), error);
            }
            try (ResultSet r = s.executeQuery("SELECT 5")) {
                check(r.next() && r.getInt(1) == 5, "after the cancel");
            }
        }
        // What tools ask of the driver.
        try (ResultSet r = c.getMetaData().getColumns(null, "public", "java", "%")) {
            int columns = 0;
            while (r.next()) columns++;
            check(columns == 6, columns);
        }
    }
}
