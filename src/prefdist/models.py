"""Load, make, adapt and save models: folders that transformers' from_pretrained opens, safetensors only.

Left out: log-probabilities (logprobs.py) and optimisation (training/).
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prefdist.errors import UserError
from prefdist.logprobs import packed_hidden
from prefdist.paths import check_model_folder
from prefdist.tokens import Packed, TextCodec


def new_policy(architecture: dict[str, Any], codec: TextCodec, seed: int) -> Any:
    """A randomly initialised causal language model; `architecture` is {"model_type": …, and the config's own keys}."""
    from transformers import AutoConfig, AutoModelForCausalLM

    _silence()
    tokens: dict[str, Any] = {"bos_token_id": codec.bos_id, "eos_token_id": codec.eos_id, "pad_token_id": codec.pad_id}
    config = AutoConfig.for_model(**architecture, vocab_size=codec.vocabulary, **tokens)
    torch.manual_seed(seed)
    return _without_dropout(AutoModelForCausalLM.from_config(config, attn_implementation=_attention(config)))


def load_policy(folder: Path, device: torch.device | str = "cpu", *, dtype: str = "float32") -> Any:
    """A causal language model, dropout off. bfloat16 halves a frozen teacher; what is trained stays in float32."""
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, folder, device, dtype)


def load_frozen(folder: Path, dtype: str = "float32") -> Any:
    """A causal language model that is only asked, on the GPU if there is one."""
    return load_policy(folder, "cuda" if torch.cuda.is_available() else "cpu", dtype=dtype).requires_grad_(False)


def load_scorer(
    folder: Path, device: torch.device | str = "cpu", *, seed: int | None = None, dtype: str = "float32"
) -> "Scorer":
    """A model with a scalar head. With a seed, the folder is a language model and the head is new (std 1/√(d+1))."""
    from transformers import AutoModelForSequenceClassification

    if seed is not None:
        torch.manual_seed(seed)
    model = _load(AutoModelForSequenceClassification, folder, device, dtype, num_labels=1)
    if seed is not None:
        head = model.get_submodule("score")
        nn.init.normal_(head.weight, std=(head.in_features + 1) ** -0.5)
    return Scorer(model)


class Scorer(nn.Module):
    """A transformers sequence classifier with one label, read at the ends of packed responses or at every token."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def rewards(self, packed: Packed) -> Tensor:
        """r̂(x, y) [R, n]: the head's output at the response's last token (EOS, where it ended), float32."""
        _, hidden = packed_hidden(self.model, packed)
        rows = torch.arange(len(hidden), device=hidden.device).unsqueeze(-1)
        return self._head(hidden[rows, packed.ends])

    def values(self, packed: Packed) -> Tensor:
        """Critic values [R, n, T] of the states before each response token, 0 outside the mask."""
        hidden, _ = packed_hidden(self.model, packed)
        values = self._head(hidden)
        return values.new_zeros(packed.mask.shape).masked_scatter(packed.mask, values)

    def _head(self, hidden: Tensor) -> Tensor:
        """In the precision of its weights, also where the layers below it run in bfloat16: it costs nothing."""
        score = self.model.get_submodule("score")
        with torch.autocast(hidden.device.type, enabled=False):
            output: Tensor = score(hidden.to(score.weight.dtype))
        return output.squeeze(-1).float()


def add_lora(model: Any, settings: dict[str, Any], seed: int) -> Any:
    """The model with trainable low-rank adapters (peft) and everything else frozen."""
    import peft

    torch.manual_seed(seed)
    return peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", bias="none", **settings))


def fold_temperature(model: Any, temperature: float) -> None:
    """Make the model's distribution at T = 1 the one it had at logits/temperature, in place.

    The scale goes into the last norm rather than the LM head, which may be tied to the input embeddings. UserError for
    models whose logits are not linear in that norm's weights; they are left as they were.
    """
    norms = [module for module in model.base_model.children() if "Norm" in type(module).__name__]
    parameters = list(norms[-1].parameters()) if norms else []
    ids = torch.arange(8, device=model.device).unsqueeze(0)
    with torch.no_grad():
        wanted = model(input_ids=ids).logits / temperature
        for parameter in parameters:
            parameter /= temperature
        gap = (model(input_ids=ids).logits - wanted).abs().max()
        if not gap <= 1e-4 * wanted.abs().max():
            for parameter in parameters:
                parameter *= temperature
            raise UserError(f"a temperature cannot be folded into a {model.config.model_type} model; set it to 1")


def save(model: Any, folder: Path, codec: TextCodec) -> None:
    """Weights that from_pretrained opens as they are; of a LoRA model the merged weights, the adapter in adapter/."""
    if hasattr(model, "merge_and_unload"):
        model.save_pretrained(folder / "adapter")
        model = model.merge_and_unload()
    model.save_pretrained(folder)
    codec.save(folder)


def parameter_count(folder: Path) -> int:
    """Number of weights stored in a model folder, from the safetensors headers."""
    count = 0
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as handle:
            header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                count += int(torch.tensor(tensor["shape"]).prod())
    return count


def _load(auto_class: Any, folder: Path, device: torch.device | str, dtype: str, **options: Any) -> Any:
    from transformers import AutoConfig

    check_model_folder(folder)
    _silence()
    attention = _attention(AutoConfig.from_pretrained(folder, local_files_only=True))
    model = auto_class.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation=attention, local_files_only=True, **options
    )
    return _without_dropout(model).to(device)


def _attention(config: Any) -> str:
    """sdpa cannot cap scores as Gemma-2 does, and without its cap that model is another one."""
    return "sdpa" if getattr(config, "attn_logit_softcapping", None) is None else "eager"


def _silence() -> None:
    """No bars for tiny files, no warning that a new scalar head is new: it is what was asked for."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _without_dropout(model: Any) -> Any:
    """Policy and reference must agree at step 0, so nothing is dropped at random."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for holder in (model.config, *model.modules()):  # attention copies its rate out of the config
        for name, value in list(vars(holder).items()):
            if name.endswith(("dropout", "pdrop")) and isinstance(value, float):
                setattr(holder, name, 0.0)
    return model
