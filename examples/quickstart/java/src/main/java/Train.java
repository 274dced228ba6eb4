import java.util.Random;
import java.util.TreeMap;
import org.mlflow.api.proto.Service.Metric;
import org.mlflow.tracking.MlflowClient;

/** MLflow's Java client: a perceptron learns which side of a plane points are on. */
public class Train {
    static final int FEATURES = 20, TRAINING = 20_000, TEST = 2_000, EPOCHS = 200;

    static double dot(double[] a, double[] b) {
        double sum = 0;
        for (int i = 0; i < FEATURES; i++) {
            sum += a[i] * b[i];
        }
        return sum;
    }

    public static void main(String[] args) {
        MlflowClient client = new MlflowClient(); // where MLFLOW_TRACKING_URI says
        String run = client.createRun(System.getenv().getOrDefault("MLFLOW_EXPERIMENT_ID", "0")).getRunId();

        Random random = new Random(0);
        double[] plane = random.doubles(FEATURES, -1, 1).toArray();
        double[][] points = new double[TRAINING + TEST][];
        for (int i = 0; i < points.length; i++) {
            points[i] = random.doubles(FEATURES, -1, 1).toArray();
        }
        double[] weights = new double[FEATURES];
        for (int epoch = 0; epoch < EPOCHS; epoch++) {
            for (int i = 0; i < TRAINING; i++) {
                double error = Math.signum(dot(plane, points[i])) - Math.signum(dot(weights, points[i]));
                for (int j = 0; j < FEATURES; j++) {
                    weights[j] += 0.01 * error * points[i][j];
                }
            }
        }
        int right = 0;
        for (int i = TRAINING; i < points.length; i++) {
            right += dot(plane, points[i]) * dot(weights, points[i]) > 0 ? 1 : 0;
        }

        client.logMetric(run, "test_accuracy", (double) right / TEST);
        client.setTerminated(run);

        TreeMap<String, Double> metrics = new TreeMap<>();
        for (Metric metric : client.getRun(run).getData().getMetricsList()) {
            metrics.put(metric.getKey(), metric.getValue());
        }
        metrics.forEach((name, value) -> System.out.printf("%-34s %.4g%n", name, value));
    }
}
