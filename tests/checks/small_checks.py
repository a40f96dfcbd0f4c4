"""Per check: what it is given on a tiny network, so that it is quick and has all that it needs."""

SMALL = {  # name -> keyword arguments for n images of 3 x 32 x 32, as a function of n
    "completeness": lambda n: {},
    "faithfulness": lambda n: {"patch": 4, "steps": 4},
}
METHOD = {"completeness": ("integrated_gradients", {"rule": "midpoint", "steps": 4})}  # else "gradient" is questioned
