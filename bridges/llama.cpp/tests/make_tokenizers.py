# SPDX-License-Identifier: Apache-2.0
"""Makes tests/tokenizers: small trained tokenizers of each known kind and what the tokenizers
library says to some texts.

Run at development time alone, with tokenizers 0.22:

    python make_tokenizers.py TEXT-FILE...      files of any text to train on
"""

import json
import shutil
import sys
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = Path(__file__).parent / "tokenizers"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
TEXTS = [
    "The quick brown fox doesn't jump over 12345 lazy dogs, it's 3.14!",
    "for (int i = 0; i < n; i++) {\n\tsum += a[i];  // total\n}\n",
    "  leading,   many   spaces\n\n\nand lines \t tabs  ",
    "na\u00efve caf\u00e9 \u00fcber stra\u00dfe \u00c5ngstr\u00f6m",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u65e5\u672c\u8a9e \u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "emoji \U0001f600\U0001f680 and ~!@#$%^&*()_+ signs",
    "We'LL see; I'M SURE they'Ve gone: 1,000,000 2nd 50%",
    "<|begin|>special tokens within<|end|> a text",
]


def level(regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)


def bpe(split, ignore_merges=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.pre_tokenizer = split
    return tokenizer, trainers.BpeTrainer(vocab_size=480, special_tokens=["<|begin|>", "<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)


def word_piece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer, trainers.WordPieceTrainer(vocab_size=480, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False)


def split(regex):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"), level(False)])


KINDS = {
    "gpt2": lambda: bpe(level(True)),
    "smollm": lambda: bpe(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level(True)])),
    "llama3": lambda: bpe(split(LLAMA3), ignore_merges=True),
    "qwen2": lambda: bpe(split(QWEN2)),
    "bert": word_piece,
}


def make(name, files):
    tokenizer, trainer = KINDS[name]()
    tokenizer.train(files, trainer)
    begin = {"llama3": "<|begin|>", "bert": "[CLS]"}.get(name)
    if name == "llama3":
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, tokenizer.token_to_id(begin))])
    if name == "bert":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[(t, tokenizer.token_to_id(t)) for t in ("[CLS]", "[SEP]")])
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    special = dict(cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]") if name == "bert" else dict(bos_token="<|begin|>", eos_token="<|end|>")
    (folder / "tokenizer_config.json").write_text(json.dumps(special) + "\n")
    expected = [dict(text=text, ids=tokenizer.encode(text).ids) for text in TEXTS]
    (folder / "expected.json").write_text(json.dumps(dict(vocab_size=tokenizer.get_vocab_size(), texts=expected)) + "\n")
    print(name, tokenizer.get_vocab_size(), [len(e["ids"]) for e in expected])


for each in KINDS:
    make(each, sys.argv[1:])
