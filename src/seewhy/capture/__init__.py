"""The only code that touches hooks and gradients. Whatever happens inside, the network is left as it was found."""

from seewhy.capture.attention import (
    Map,
    See,
    Span,
    attend,
    attention_gradients,
    block_outputs,
    heads_of,
    one_block,
    trace_attention,
)
from seewhy.capture.folding import Fold, Folded, Folding, find_folds, folded_weights, hooked
from seewhy.capture.gradients import (
    OUTSIDE,
    WITHOUT_GRADIENTS,
    Call,
    Score,
    Site,
    activations_and_gradients,
    input_gradient,
    integer_modules,
    where_graph_is_cut,
)
from seewhy.capture.keeping import Kept, keeping_outputs
from seewhy.capture.listening import FEW_DIGITS, Activated, Activation, Listening, joined
from seewhy.capture.memory import peak_memory
from seewhy.capture.outputs import copied, detach, first_tensor, fixed_rows, in_rows, tensors
from seewhy.capture.paths import on_every_path
from seewhy.capture.rectifiers import Gates, Rule, SoftReLUs, gate_relus
from seewhy.capture.state import Version, digest, frozen, guard, random_states, version
from seewhy.capture.tracing import called, look_at, output_with_edit, outputs_at, returned_by, trace

__all__ = [
    "FEW_DIGITS",
    "OUTSIDE",
    "WITHOUT_GRADIENTS",
    "Activated",
    "Activation",
    "Call",
    "Fold",
    "Folded",
    "Folding",
    "Gates",
    "Kept",
    "Listening",
    "Map",
    "Rule",
    "Score",
    "See",
    "Site",
    "SoftReLUs",
    "Span",
    "Version",
    "activations_and_gradients",
    "attend",
    "attention_gradients",
    "block_outputs",
    "called",
    "copied",
    "detach",
    "digest",
    "find_folds",
    "first_tensor",
    "fixed_rows",
    "folded_weights",
    "frozen",
    "gate_relus",
    "guard",
    "heads_of",
    "hooked",
    "in_rows",
    "input_gradient",
    "integer_modules",
    "joined",
    "keeping_outputs",
    "look_at",
    "on_every_path",
    "one_block",
    "output_with_edit",
    "outputs_at",
    "peak_memory",
    "random_states",
    "returned_by",
    "tensors",
    "trace",
    "trace_attention",
    "version",
    "where_graph_is_cut",
]
