"""Per check: what it is given on a tiny network, so that it is quick and has all that it needs."""

SMALL = {  # name -> keyword arguments for n images of 3 x 32 x 32, as a function of n
    "completeness": lambda n: {},
    "cost": lambda n: {"repeats": 2},
    "localization": lambda n: {"boxes": [[[4, 6, 20, 28]], [[0, 0, 9, 9], [16, 16, 32, 32]]] * (n // 2)},
    "resolution": lambda n: {"boxes": [[[4, 6, 20, 28]]] * n},
    "stability": lambda n: {"samples": 2},
}
METHOD = {"completeness": ("integrated_gradients", {"rule": "midpoint", "steps": 4})}  # else "gradient" is questioned
