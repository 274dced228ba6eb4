import org.mlflow.api.proto.Service.RunInfo;
import org.mlflow.tracking.MlflowClient;

/** A run by the unmodified Java client: all it is told is the tracking URI. */
public class Train {
    public static void main(String[] args) {
        MlflowClient client = new MlflowClient(args[0]);
        RunInfo run = client.createRun(client.createExperiment(args[1]));
        long end = System.nanoTime() + 1_000_000_000L;
        while (System.nanoTime() < end) {
        }
        client.logMetric(run.getRunId(), "test_accuracy", 0.5);
        client.setTerminated(run.getRunId());
        System.out.println("{\"run\":\"" + run.getRunId() + "\"}");
    }
}
