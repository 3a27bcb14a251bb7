"""Prints what eval.py measures, and each model's worst series beside the better naive one.

table.py EVAL_PY PART MODEL..."""
import importlib.util
import sys

import numpy as np

path, part, *models = sys.argv[1:]
spec = importlib.util.spec_from_file_location('ev', path)
ev = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ev)

series = ev.load(part)
predictions = {name: ev.getp(name, series) for name in {*models, 'naive', 'snaive'}}
print(f'{len(series)} {part} series, 20 forecasts each; relMASE and relSQL are relative to the daily '
      'seasonal naive; worst: MASE of the worst series, relative to the better of last value and '
      'seasonal naive')
for h in (12, 96):
    scores = {name: ev.score1(p, series, h) for name, (p, _) in predictions.items()}
    base = scores['snaive']
    better = np.minimum(scores['naive'].mase, base.mase)
    print(f'\n{h} steps ahead')
    print(f"{'':15}{'relMASE':>8}{'relSQL':>8}{'cov80':>7}{'cov95':>7}{'AUC':>7}{'rec@10':>8}"
          f"{'worst':>7}  {'':16}{'CPU ms':>8}{'p95':>7}")
    for name in models:
        s = ev.summ(scores[name], base)
        ratio = scores[name].mase / better
        relative = np.exp(np.log(scores[name].mase / base.mase).mean())
        quantile = np.exp(np.log(scores[name].sql / base.sql).mean())
        seconds = np.concatenate(list(predictions[name][1].values()))
        print(f"{name:15}{relative:8.3f}{quantile:8.3f}{scores[name].c80.mean():7.3f}"
              f"{scores[name].c95.mean():7.3f}{s['onset_auc']:7.3f}{s['rec_far10']:8.2f}"
              f"{ratio.max():7.2f}  {ratio.idxmax():16}{1e3 * seconds.mean():8.2f}"
              f"{1e3 * np.quantile(seconds, .95):7.2f}")
