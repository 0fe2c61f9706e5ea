"""The papers that the rules come from, each once. What was not read in the original says who reports it."""

from __future__ import annotations

from rightbatch.rules.rule import Source

BENGIO = Source(
    "Bengio, Yoshua",
    2012,
    "Practical recommendations for gradient-based training of deep architectures",
    "arXiv 1206.5533",
    "section 3.1.1",
    reported="course notes",
)
MASTERS = Source(
    "Masters, Dominic and Luschi, Carlo",
    2018,
    "Revisiting small batch training for deep neural networks",
    "arXiv 1804.07612",
    "abstract",
)
PLAYBOOK = Source(
    "Godbole, Varun and Dahl, George E. and Gilmer, Justin and Shallue, Christopher J. and Nado, Zachary",
    2023,
    "Deep learning tuning playbook",
    "github.com/google-research/tuning_playbook",
    "Choosing the batch size",
    reported="lecture notes on it",
)
GOODFELLOW = Source(
    "Goodfellow, Ian and Bengio, Yoshua and Courville, Aaron",
    2016,
    "Deep learning",
    "MIT Press",
    "section 8.1.3",
    reported="memory: the passage was not looked up",
)
NG = Source(
    "Ng, Andrew",
    2017,
    "Improving deep neural networks: hyperparameter tuning, regularization and optimization",
    "Coursera",
    "Understanding mini-batch gradient descent",
    reported="notes of the course",
)
MCCANDLISH = Source(
    "McCandlish, Sam and Kaplan, Jared and Amodei, Dario and OpenAI Dota Team",
    2018,
    "An empirical model of large-batch training",
    "arXiv 1812.06162",
    reported="notes by section, and by Li et al. 2024",
)
KAPLAN = Source(
    "Kaplan, Jared and McCandlish, Sam and Henighan, Tom and Brown, Tom B.",
    2020,
    "Scaling laws for neural language models",
    "arXiv 2001.08361",
    "section 5.1",
    reported="reviews",
)
SMITH_LE = Source(
    "Smith, Samuel L. and Le, Quoc V.",
    2018,
    "A Bayesian perspective on generalization and stochastic gradient descent",
    "arXiv 1710.06451",
    "abstract",
)
POLLUX = Source(
    "Qiao, Aurick and Choe, Sang Keun and Subramanya, Suhas Jayaram and Neiswanger, Willie",
    2021,
    "Pollux: co-adaptive cluster scheduling for goodput-optimized deep learning",
    "OSDI 2021",
    "efficiency as in its code; the closed form for one device is ours",
)
ZHANG = Source(
    "Zhang, Hanlin and Morwani, Depen and Vyas, Nikhil and Wu, Jingfeng",
    2024,
    "How does critical batch size scale in pre-training?",
    "arXiv 2410.21676",
    reported="reviews and its repository",
)
POWER_LINES = Source(
    "Bergsma, Shane and Dey, Nolan and Gosal, Gurpreet and Gray, Gavia",
    2025,
    "Power lines: scaling laws for weight decay and batch size in LLM pre-training",
    "arXiv 2505.13738",
    "abstract",
)
DEEPSEEK = Source(
    "DeepSeek-AI",
    2024,
    "DeepSeek LLM: scaling open-source language models with longtermism",
    "arXiv 2401.02954",
    "section 3.1",
    reported="six independent digests",
)
THOMA = Source(
    "Thoma, Martin",
    2017,
    "Analysis and optimization of convolutional neural network architectures",
    "arXiv 1707.09725",
    "section 5.9, table 5.9",
)
KRIZHEVSKY = Source(
    "Krizhevsky, Alex",
    2014,
    "One weird trick for parallelizing convolutional neural networks",
    "arXiv 1404.5997",
    "section 5",
    reported="Goyal et al. 2017 and Hoffer et al. 2017",
)
GOYAL = Source(
    "Goyal, Priya and Dollar, Piotr and Girshick, Ross and Noordhuis, Pieter",
    2017,
    "Accurate, large minibatch SGD: training ImageNet in 1 hour",
    "arXiv 1706.02677",
    "section 2.1",
    reported="Shallue et al. 2019",
)
HOFFER = Source(
    "Hoffer, Elad and Hubara, Itay and Soudry, Daniel",
    2017,
    "Train longer, generalize better: closing the generalization gap in large batch training of neural networks",
    "arXiv 1705.08741",
    "the authors' code",
)
MALLADI = Source(
    "Malladi, Sadhika and Lyu, Kaifeng and Panigrahi, Abhishek and Arora, Sanjeev",
    2022,
    "On the SDEs and scaling rules for adaptive gradient algorithms",
    "arXiv 2205.10287",
    "abstract; betas and epsilon derived anew",
)
SURGE = Source(
    "Li, Shuaipeng and Zhao, Penghao and Zhang, Hailin and Sun, Xingwu",
    2024,
    "Surge phenomenon in optimal learning rate and batch size scaling",
    "arXiv 2405.14578",
    "equations 4 and 14",
)
MAREK = Source(
    "Marek, Martin and Lotfi, Sanae and Somasundaram, Aditya and Wilson, Andrew Gordon",
    2025,
    "Small batch size training for language models: when vanilla SGD works, and why gradient accumulation is wasteful",
    "arXiv 2507.07101",
    reported="a summary and its repository",
)
MANDT = Source(
    "Mandt, Stephan and Hoffman, Matthew D. and Blei, David M.",
    2017,
    "Stochastic gradient descent as approximate Bayesian inference",
    "JMLR 18(134), arXiv 1704.04289",
    "equation 13",
)
SHALLUE = Source(
    "Shallue, Christopher J. and Lee, Jaehoon and Antognini, Joseph and Sohl-Dickstein, Jascha",
    2019,
    "Measuring the effects of data parallelism on neural network training",
    "JMLR 20(112), arXiv 1811.03600",
    "section 4",
)
BREUEL = Source(
    "Breuel, Thomas M.",
    2015,
    "Benchmarking of LSTM networks",
    "arXiv 1508.02774",
    "abstract",
)
KESKAR = Source(
    "Keskar, Nitish Shirish and Mudigere, Dheevatsa and Nocedal, Jorge and Smelyanskiy, Mikhail",
    2017,
    "On large-batch training for deep learning: generalization gap and sharp minima",
    "ICLR 2017, arXiv 1609.04836",
    "section 2, table 2",
)
DINH = Source(
    "Dinh, Laurent and Pascanu, Razvan and Bengio, Samy and Bengio, Yoshua",
    2017,
    "Sharp minima can generalize for deep nets",
    "arXiv 1703.04933",
    "against it",
    reported="Shallue et al. 2019",
)
SMITH_GROW = Source(
    "Smith, Samuel L. and Kindermans, Pieter-Jan and Ying, Chris and Le, Quoc V.",
    2018,
    "Don't decay the learning rate, increase the batch size",
    "arXiv 1711.00489",
    reported="notes on it",
)
EMSO = Source(
    "Li, Mu and Zhang, Tong and Chen, Yuqiang and Smola, Alexander J.",
    2014,
    "Efficient mini-batch training for stochastic optimization",
    "KDD 2014",
    reported="Wang, Wang and Srebro 2017",
)
WANG = Source(
    "Wang, Jialei and Wang, Weiran and Srebro, Nathan",
    2017,
    "Memory and communication efficient distributed stochastic optimization with minibatch prox",
    "COLT 2017, arXiv 1702.06269",
    "page 6",
)
