"""Runs operators in Triton's interpreter, for tests/kernels/conftest.py: has to be a process of its own, since Triton
decides at its import whether kernels are compiled. Reads questions from stdin and writes answers to stdout, pickled.
"""

import os
import pickle
import sys
import traceback

os.environ["TRITON_INTERPRET"] = "1"

import torch
import triton
from interpreted_elementwise import elementwise, elementwise_checked, taken
from triton.runtime.interpreter import InterpretedFunction

from mmrnn_kernels import gated_delta_rule, kda, selective_scan, wkv5, wkv6, wkv7
from mmrnn_kernels.selective_scan.triton import ops as scan_ops
from mmrnn_kernels.wkv6.triton import ops, plan, wkv6_triton_step
from mmrnn_kernels.wkv7.triton import ops as ops7
from mmrnn_kernels.wkv7.triton import plan as plan7

torch.set_num_threads(1)
OPS = {"wkv5": wkv5, "wkv6": wkv6, "wkv7": wkv7, "gated_delta_rule": gated_delta_rule, "kda": kda}
OPS["selective_scan"] = selective_scan
NAMES = dict.fromkeys(
    ("wkv5", "wkv6", "gated_delta_rule", "kda"), ("out", "end", "dr", "dk", "dv", "dw", "du", "dstate")
)
NAMES["selective_scan"] = ("out", "end", "dx", "ddt", "da", "db", "dc", "dstate")
NAMES["wkv7"] = ("out", "end", "dr", "dw", "dk", "dv", "da", "db", "dstate")
assert triton.knobs.runtime.interpret

called = InterpretedFunction.__call__


def call(self, *given, **options):
    """The launch of a kernel makes the language interpretable, and each call inside of it would once more, which takes
    most of the time. Only functions of the language itself need it."""
    ours = self.fn.__module__.startswith("mmrnn_kernels")
    return self.rewrite()(*given, **options) if ours else called(self, *given, **options)


InterpretedFunction.__call__ = call


USUAL = {plan: plan.is_recurrent, plan7: plan7.is_recurrent}


def differentiated(name, inputs, grads, **options):
    """Outputs and all gradients by name; an input or a gradient may be None."""
    leaves = [None if x is None else x.detach().clone().requires_grad_() for x in inputs]
    outputs = OPS[name](*leaves, backend="triton", **options)
    used = [(y, g.to(y.dtype)) for y, g in zip(outputs, grads, strict=True) if g is not None]
    wanted = [x for x in leaves if x is not None]
    found = torch.autograd.grad([y for y, _ in used], wanted, [g for _, g in used])
    return dict(zip(NAMES[name], (*(y.detach() for y in outputs), *found), strict=False))


def stepped(inputs):
    state = inputs[-1].clone()
    place = state.data_ptr()
    out = wkv6_triton_step(*inputs[:-1], state)
    assert state.data_ptr() == place
    return out, state


def checked(name, inputs, grads, bounds):
    """`opcheck` of the operators: schema, fake tensors, autograd."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    found = {"selective_scan": scan_ops, "wkv7": ops7}.get(name, ops)
    torch.library.opcheck(found.forward, (*leaves, bounds))
    torch.library.opcheck(found.forward, (*inputs[:-1], None, None))
    torch.library.opcheck(found.backward, (*inputs, bounds, *grads))
    torch.library.opcheck(found.backward, (*inputs[:-1], None, None, None, grads[1]))
    if name == "wkv6":
        torch.library.opcheck(ops.step, (*(x[:, 0].contiguous() for x in inputs[:4]), *inputs[4:]))
    compiled = torch.compile(OPS[name], backend="aot_eager", fullgraph=True)
    for op in (compiled, OPS[name]):
        outputs = op(*leaves, cu_seqlens=bounds, backend="triton")
        yield [*outputs, *torch.autograd.grad(outputs, leaves, grads)]


def backbone(version, knobs, params, ids, targets):
    """Logits, final WKV states and gradients (under the original names) of a published model's small sister."""
    from mmrnn import weights
    from mmrnn.backbones import RWKV5, RWKV6
    from mmrnn.types import Sequence

    model = {"rwkv5": RWKV5, "rwkv6": RWKV6}[version](**knobs, backend="triton")
    weights.load(model, params)
    hidden, state = model(Sequence(ids))
    logits = model.head(hidden)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    grads = {name: value.grad for name, value in model.named_parameters()}
    return logits.detach(), [layer["wkv"].detach() for layer in state.layers], grads


def answer(what, *arguments, processors=1, form=None, **options):
    """`processors`: how many there seem to be, which decides into how many pieces sequences are cut. `form`:
    `recurrent` or `chunks`, for sequences of any type and length."""
    plan.processors = lambda _: processors
    torch.use_deterministic_algorithms(what != "checked")  # which fills fresh memory with NaN
    for chosen, usual in USUAL.items():
        chosen.is_recurrent = (lambda *_: form == "recurrent") if form else usual
    if what == "checked":
        return [*checked(*arguments, **options)]
    choices = {"differentiated": differentiated, "stepped": stepped, "backbone": backbone}
    choices |= {"elementwise": elementwise, "elementwise checked": elementwise_checked, "taken": taken}
    return choices[what](*arguments, **options)


def main():
    replies, sys.stdout = sys.stdout.buffer, sys.stderr
    while True:
        try:
            what, arguments, options = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            found = answer(what, *arguments, **options)
        except Exception as error:
            found = type(error)(f"{error}\n{traceback.format_exc()}") if type(error) is not ValueError else error
        pickle.dump(found, replies)
        replies.flush()


if __name__ == "__main__":
    main()
