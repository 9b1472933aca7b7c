"""The corruption that masked language modelling predicts away (Devlin et al. 2018, section 3.1)."""

import numpy as np

IGNORED = -100


def mask_tokens(
    input_ids: np.ndarray,
    special: np.ndarray,
    vocab_size: int,
    mask_id: int,
    probability: float,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses each token with `probability`; of the chosen, 80 % become `[MASK]`, 10 % any token, 10 % stay.

    input_ids: int64 `[S, T]`. special: bool `[S, T]`, true where a token must never be chosen ([CLS],
    padding ...). Returns (the corrupted ids, labels), both int64 `[S, T]`; a label is the original id of a
    chosen token, else -100. The draws taken from `generator` depend on the shape alone, never on the
    tokens.
    """
    chosen = (generator.random(input_ids.shape) < probability) & ~special
    fate = generator.random(input_ids.shape)
    anything = generator.integers(vocab_size, size=input_ids.shape)
    replaced = np.where(fate < 0.8, mask_id, np.where(fate < 0.9, anything, input_ids))
    return np.where(chosen, replaced, input_ids), np.where(chosen, input_ids, IGNORED)
