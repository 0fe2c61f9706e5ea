"""A small BERT of Hugging Face with batches that are dicts, trained by hand: which of two words is more frequent?

rightbatch find examples/hugging_face_by_hand.py:train --target 0.4 --present 32,0.001 --train-examples 5000
"""

import torch
from transformers import BertConfig, BertForSequenceClassification

import rightbatch

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
WORDS = torch.randint(0, 8, (6_000, 16), generator=torch.Generator().manual_seed(0))
LABELS = ((WORDS == 1).sum(1) > (WORDS == 2).sum(1)).long()
TRAIN = torch.utils.data.TensorDataset(WORDS[:5_000], LABELS[:5_000])


def collate(rows):
    return {"input_ids": torch.stack([row[0] for row in rows]), "labels": torch.stack([row[1] for row in rows])}


def train(trial):
    size, rate = trial.batch_size, trial.learning_rate
    model = BertForSequenceClassification(BertConfig(vocab_size=8, max_position_embeddings=16, **SMALL))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    loader = torch.utils.data.DataLoader(TRAIN, size, shuffle=True, drop_last=True, collate_fn=collate)
    step = 0
    for _ in range(10):  # passes over the data
        for batch in loader:
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            if trial.due(step):
                model.eval()
                with torch.no_grad():
                    loss = model(input_ids=WORDS[5_000:], labels=LABELS[5_000:]).loss
                model.train()
                yield rightbatch.Point(step, valid_loss=loss)
