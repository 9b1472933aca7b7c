"""WordPiece vocabularies trained on captions."""

import json
import os
import random
import subprocess
import sys

import pytest

from pixelbert_fast.data.vocabulary import SPECIAL_TOKENS, train_wordpiece
from pixelbert_fast.errors import UserError

CAPTIONS = [
    "A large red circle is left of a small blue square.",
    "two red circles",
    "one blue crescent above a striped hexagon",
    "There is nothing, except the grey ground",
]


def test_words_that_fit_are_single_tokens():
    tokenizer = train_wordpiece(CAPTIONS, 2000)
    assert tokenizer("two RED circles.").tokens() == ["[CLS]", "two", "red", "circles", ".", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(range(5)) == list(SPECIAL_TOKENS)
    for text in CAPTIONS:
        assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]


def test_frequent_pieces_come_first_when_size_is_short():
    letters = len(train_wordpiece(["abcd abcd abcd xbyd"], 1000))
    # 5 special tokens, 2 + 4 letters at a word's beginning or inside, 3 + 3 merges.
    assert letters == 17
    tokenizer = train_wordpiece(["abcd abcd abcd xbyd"], letters - 3)
    assert len(tokenizer) == letters - 3
    assert tokenizer("abcd").tokens()[1:-1] == ["abcd"]
    assert len(tokenizer("xbyd").tokens()) > 3


def test_a_pair_that_overlaps_itself_is_merged_once():
    tokenizer = train_wordpiece(["aaaaa aaaaa"], 100)
    assert tokenizer("aaaaa aaaaaaa").tokens()[1:-1] == ["aaaaa", "aaaaa", "##aa"]


def test_the_order_of_texts_does_not_matter():
    shuffled = [" ".join(random.Random(0).sample(text.split(), len(text.split()))) for text in CAPTIONS[::-1]]
    assert train_wordpiece(shuffled, 90).get_vocab() == train_wordpiece(CAPTIONS, 90).get_vocab()


def test_every_process_gets_the_same_vocabulary():
    # Python's hash seed, which every rank draws anew, must not show.
    code = (
        "import json, random; from pixelbert_fast.data.vocabulary import train_wordpiece\n"
        "r = random.Random(0)\n"
        "texts = [''.join(r.choices('abcdefgh', k=6)) for _ in range(200)]\n"
        "print(json.dumps(sorted(train_wordpiece(texts, 150).get_vocab().items())))"
    )
    seeds = [{**os.environ, "PYTHONHASHSEED": seed} for seed in ("1", "2")]
    outputs = [subprocess.check_output([sys.executable, "-c", code], env=env, text=True) for env in seeds]
    assert outputs[0] == outputs[1]
    assert len(json.loads(outputs[0])) == 150


def test_saved_and_loaded_it_is_the_same(tmp_path):
    from transformers import AutoTokenizer

    tokenizer = train_wordpiece(CAPTIONS, 80)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again(CAPTIONS)["input_ids"] == tokenizer(CAPTIONS)["input_ids"]
    assert (again.mask_token, again.pad_token) == ("[MASK]", "[PAD]")


def test_texts_without_words_and_sizes_without_room_are_refused():
    with pytest.raises(UserError, match="hold no words"):
        train_wordpiece(["", "  "], 100)
    with pytest.raises(UserError, match="tokenizer size 10 is too small"):
        train_wordpiece(CAPTIONS, 10)
