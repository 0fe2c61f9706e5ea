"""A PyTorch script that knows nothing of rightbatch but that it prints a line of JSON now and then.

    rightbatch find --target 0.35 --present 32,0.1 --train-examples 10000 -- python examples/plain_script.py \\
        --batch-size {batch_size} --lr {learning_rate} --seed {seed}
"""

import argparse
import json
import time

import torch

parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, default=10)
args = parser.parse_args()

data = torch.Generator().manual_seed(0)
x = torch.randn(12_000, 20, generator=data)
y = (x[:, :10].sum(1) * x[:, 10:].sum(1) > 0).long()
torch.manual_seed(args.seed)
model = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
loss = torch.nn.CrossEntropyLoss()
steps, seconds = 0, 0.0
for _ in range(args.epochs * 4):  # four validations a pass
    started = time.perf_counter()
    for batch in torch.randperm(10_000)[:2_500].split(args.batch_size):
        optimizer.zero_grad()
        loss(model(x[batch]), y[batch]).backward()
        optimizer.step()
        steps += 1
    seconds += time.perf_counter() - started
    with torch.no_grad():
        valid_loss = loss(model(x[10_000:]), y[10_000:]).item()
    print(json.dumps({"step": steps, "seconds": seconds, "valid_loss": valid_loss}), flush=True)
