#!/usr/bin/env bash
# Forecasts real load series by the protocol of eval.py and prints the table beside the baselines.
# FORECAST_DATA names a folder like this one with other series; PART is their part, public or heldout;
# MODELS are those that are tried beside the default, each alone with the ensemble (by default all that
# the policy can name; mstl_ets takes twenty minutes), and all but mstl_ets together with arima;
# FORESHARD is the program.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
data=${FORECAST_DATA:-$here}
part=${PART:-public}
models=${MODELS-lags lstm prophet mstl_ets}
program=${FORESHARD:-$root/target/release/foreshard}
work=${CARGO_TARGET_DIR:-$root/target}/forecast-eval
mkdir -p "$work"
python=$work/venv/bin/python
if ! "$python" -c 'import numpy, pandas' 2>/dev/null; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install -q numpy pandas
fi
export PREDS=$work/$part
eval_py() { "$python" "$data/eval.py" "$@" --part "$part"; }

for baseline in naive snaive swnaive bwe; do
  [ -f "$PREDS/$baseline.npz" ] || eval_py run "$baseline"
done
eval_py tasks "$work/$part.jsonl"
forecast() {
  "$program" forecast --tasks "$work/$part.jsonl" --out "$work/$part-$1.f32" --models "$2"
  eval_py import "$1" "$work/$part-$1.f32"
}
forecast foreshard arima
names=(foreshard)
for model in $models; do
  forecast "with_$model" "$model"
  names+=("with_$model")
done
together=arima
for model in $models; do
  [ "$model" = mstl_ets ] || together=$together,$model
done
if [ "$together" != arima ]; then
  forecast together "$together"
  names+=(together)
fi
echo
"$python" "$here/table.py" "$data/eval.py" "$part" "${names[@]}" bwe naive snaive swnaive
