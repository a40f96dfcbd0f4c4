"""Per check: what it is given on a tiny network, so that it is quick and has all that it needs."""

SMALL = {  # name -> keyword arguments for n images of 3 x 32 x 32, as a function of n
    "completeness": lambda n: {},
    "model_randomization": lambda n: {"networks": 2, "order": ("cascading", "independent")},
}
METHOD = {"completeness": ("integrated_gradients", {"rule": "midpoint", "steps": 4})}  # else "gradient" is questioned
