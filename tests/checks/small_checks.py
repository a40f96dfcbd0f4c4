"""Per check: what it is given on a tiny network, so that it is quick and has all that it needs."""

import seewhy as sw

SMALL = {  # name -> keyword arguments for n images of 3 x 32 x 32, as a function of n
    "completeness": lambda n: {},
    "class_discrimination": lambda n: {},
    "agreement": lambda n: {"others": {"grad_cam": sw.bind("grad_cam")}},
    "shape_bias": lambda n: {
        "shapes": ["cat", "dog", "cat", "bird"][:n],
        "textures": ["dog", "bird", "cat", "dog"][:n],
        "mapping": {"cat": [0, 4], "dog": [1, 2], "bird": [3]},
    },
}
METHOD = {"completeness": ("integrated_gradients", {"rule": "midpoint", "steps": 4})}  # else "gradient" is questioned
