import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.kafka.common.utils.Exit;

/** Kafka's own command line tools in one process, whose start is most of what they take: calls of one tool side by side. */
public class Tools {
  /** A file of calls: a tool's class and its arguments, each on a line, and an empty line. */
  public static void main(String[] files) throws Exception {
    Exit.setExitProcedure(
        (status, message) -> {
          if (status == 0) return;
          System.err.println(message == null ? "exit " + status : message);
          System.exit(status);
        });
    Map<String, List<Callable<Void>>> byTool = new LinkedHashMap<>();
    for (String call : Files.readString(Path.of(files[0])).split("\n\n")) {
      if (call.isBlank()) continue;
      String[] words = call.strip().split("\n");
      byTool.computeIfAbsent(words[0], tool -> new ArrayList<>()).add(() -> run(words));
    }
    ExecutorService workers = Executors.newFixedThreadPool(6);
    for (List<Callable<Void>> calls : byTool.values())
      for (Future<Void> done : workers.invokeAll(calls)) done.get();
    workers.shutdown();
  }

  private static Void run(String[] words) throws Exception {
    Class.forName(words[0])
        .getMethod("main", String[].class)
        .invoke(null, (Object) Arrays.copyOfRange(words, 1, words.length));
    return null;
  }
}
