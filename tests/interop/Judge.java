import java.io.BufferedInputStream;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.Collections;
import java.util.HexFormat;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;
import java.util.zip.ZipInputStream;

/**
 * Reads a ZIP archive with the JDK's own two readers and prints one line a member:
 * name (UTF-8, in hex), "dir" or the number of bytes read, SHA-256 of them, time in Unix seconds.
 *
 * "stream" reads standard input through ZipInputStream (which checks sizes and CRC-32), "file PATH" through ZipFile.
 */
public final class Judge {
    private static final byte[] BUFFER = new byte[1 << 16];

    public static void main(String[] arguments) throws Exception {
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        if (arguments[0].equals("stream")) {
            try (ZipInputStream zip = new ZipInputStream(new BufferedInputStream(System.in, 1 << 16))) {
                for (ZipEntry entry = zip.getNextEntry(); entry != null; entry = zip.getNextEntry()) {
                    String read = consume(zip);
                    print(out, entry, read);
                }
                while (System.in.read(BUFFER) > 0) {
                    // The central directory, which a ZipInputStream leaves unread, belongs to the pipe all the same.
                }
            }
        } else {
            try (ZipFile zip = new ZipFile(arguments[1])) {
                for (ZipEntry entry : Collections.list(zip.entries())) {
                    try (InputStream content = zip.getInputStream(entry)) {
                        print(out, entry, consume(content));
                    }
                }
            }
        }
        out.flush();
    }

    private static String consume(InputStream content) throws Exception {
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        long size = 0;
        for (int count = content.read(BUFFER); count >= 0; count = content.read(BUFFER)) {
            digest.update(BUFFER, 0, count);
            size += count;
        }
        return size + " " + HexFormat.of().formatHex(digest.digest());
    }

    private static void print(PrintStream out, ZipEntry entry, String read) {
        String name = HexFormat.of().formatHex(entry.getName().getBytes(StandardCharsets.UTF_8));
        long seconds = entry.getLastModifiedTime().toMillis() / 1000;
        out.println(name + " " + (entry.isDirectory() ? "dir -" : read) + " " + seconds);
    }
}
