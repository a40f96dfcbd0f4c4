"""Maps of images with the evidence of how far each can be trusted."""

from seewhy.explanation.result import MEANING, Explanation, Status, read_explanation, show_in_notebooks_with
from seewhy.explanation.run import explain, explain_inputs

__all__ = [
    "MEANING",
    "Explanation",
    "Status",
    "explain",
    "explain_inputs",
    "read_explanation",
    "show_in_notebooks_with",
]
