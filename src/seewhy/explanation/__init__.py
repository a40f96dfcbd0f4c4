"""Maps of images with the evidence of how far each can be trusted."""

from seewhy.explanation.forecast import rows_per_image, seconds_of, seconds_per_row
from seewhy.explanation.provenance import VERSIONED, machine, network_of, versions
from seewhy.explanation.questions import checked_question
from seewhy.explanation.result import (
    MEANING,
    Explanation,
    Status,
    pixels_of_picture,
    read_explanation,
    sha256,
    show_in_notebooks_with,
    stated,
)
from seewhy.explanation.run import check_call, explain, explain_rows, maps_of, where_black_is_a_value

__all__ = [
    "MEANING",
    "VERSIONED",
    "Explanation",
    "Status",
    "check_call",
    "checked_question",
    "explain",
    "explain_rows",
    "machine",
    "maps_of",
    "network_of",
    "pixels_of_picture",
    "read_explanation",
    "rows_per_image",
    "seconds_of",
    "seconds_per_row",
    "sha256",
    "show_in_notebooks_with",
    "stated",
    "versions",
    "where_black_is_a_value",
]
