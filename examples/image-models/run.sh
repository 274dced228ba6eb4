#!/bin/sh
# Measures the benchmark on this machine: an MLflow server with the proxy in front, a run per model, and then the table and
# the pictures, in the folder out/ beside this file. Takes train.py's arguments, and the proxy's settings by their
# environment variables (EMISSIONS_LOCATION=BE, say). Needs Go, and the requirements installed in the Python on PATH.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$here/out
export EMISSIONS_LISTEN="${EMISSIONS_LISTEN:-127.0.0.1:5001}" EMISSIONS_ADMIN_LISTEN="${EMISSIONS_ADMIN_LISTEN:-127.0.0.1:5002}"
export MLFLOW_TRACKING_URI="http://$EMISSIONS_LISTEN"

mkdir -p "$out"
(cd "$here/../.." && go build -o "$out/" .)
cd "$out" # where the server keeps what it is told
./mlflow-emissions-proxy >proxy.log 2>&1 &
proxy=$!
trap 'kill $proxy; wait $proxy' EXIT
until ./mlflow-emissions-proxy healthcheck 2>/dev/null; do
  kill -0 $proxy || { tail proxy.log; exit 1; }
  sleep 1
done

python "$here/train.py" --experiment image-models "$@"

report() { ./mlflow-emissions-proxy report image-models --sort emissions_g "$@"; }
report --format csv -o table.csv
for plot in accuracy predictions energy; do report --format svg --plot "$plot" -o "$plot.svg"; done
report | tee table.txt
