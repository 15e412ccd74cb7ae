"""The next numbers to try, by Optuna: reads one JSON document from standard input, prints one.

in:  {"sampler": "tpe" | "nsga2", "seed": 7, "space": {NAME: [VALUE, ...] | {"from", "to", "log"?, "integer"?}},
      "trials": [{"numbers": {NAME: VALUE}, "values": [ACC, VRA]}, ...]}
out: {NAME: VALUE}
Nothing is kept between two calls: what was tried stands in the file of the search.
"""
import json
import sys

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)
query = json.load(sys.stdin)


def distribution(range_):
    if isinstance(range_, list):
        return optuna.distributions.CategoricalDistribution(range_)
    kind = optuna.distributions.IntDistribution if range_.get("integer") else optuna.distributions.FloatDistribution
    return kind(range_["from"], range_["to"], log=range_.get("log", False))


space = {name: distribution(range_) for name, range_ in query["space"].items()}
samplers = {"tpe": optuna.samplers.TPESampler, "nsga2": optuna.samplers.NSGAIISampler}
study = optuna.create_study(
    directions=["maximize", "maximize"], sampler=samplers[query["sampler"]](seed=query["seed"])
)
for trial in query["trials"]:
    study.add_trial(
        optuna.trial.create_trial(params=trial["numbers"], distributions=space, values=trial["values"])
    )
print(json.dumps(study.ask(space).params))
