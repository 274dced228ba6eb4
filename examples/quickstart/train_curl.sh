#!/bin/sh
# A shell script with curl: whatever can send HTTP requests has a run. Here awk learns which side of a line points are on.
set -eu
: "${MLFLOW_TRACKING_URI:?the address of the proxy, for example http://127.0.0.1:5001}"

mlflow() { # METHOD CALL BODY
  curl -sS --fail-with-body -X "$1" -H 'Content-Type: application/json' -d "$3" "$MLFLOW_TRACKING_URI/api/2.0/mlflow/$2"
}

now() { echo "$(date +%s)000"; } # milliseconds since 1970
run=$(mlflow POST runs/create "{\"experiment_id\": \"${MLFLOW_EXPERIMENT_ID:-0}\", \"run_name\": \"curl\", \"start_time\": $(now)}" |
  sed -n 's/.*"run_id": *"\([^"]*\)".*/\1/p' | head -n 1)

accuracy=$(awk 'BEGIN {
  srand(1)
  for (i = 0; i < 3000; i++) { x[i] = rand(); y[i] = rand(); above[i] = y[i] > 0.7 * x[i] + 0.1 }
  for (epoch = 0; epoch < 4000; epoch++)
    for (i = 0; i < 2000; i++) {
      error = above[i] - (a * x[i] + b * y[i] + c > 0)
      a += 0.01 * error * x[i]; b += 0.01 * error * y[i]; c += 0.01 * error
    }
  for (i = 2000; i < 3000; i++) right += above[i] == (a * x[i] + b * y[i] + c > 0)
  print right / 1000
}')

mlflow POST runs/log-metric "{\"run_id\": \"$run\", \"key\": \"test_accuracy\", \"value\": $accuracy, \"timestamp\": $(now)}" >/dev/null
mlflow POST runs/update "{\"run_id\": \"$run\", \"status\": \"FINISHED\", \"end_time\": $(now)}" >/dev/null

mlflow GET "runs/get?run_id=$run" '' | tr -d ' \n' | grep -o '"key":"[^"]*","value":[0-9.e+-][0-9.e+-]*' |
  sed 's/"key":"\([^"]*\)","value":/\1 /' | sort | while read -r name value; do printf '%-34s %.4g\n' "$name" "$value"; done
