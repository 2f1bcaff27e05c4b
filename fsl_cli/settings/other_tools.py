"""Other tools' names for what can be typed here: a table for settings, and one for choices."""

from __future__ import annotations

import re

SETTINGS = {  # a setting, and others' words for it
    "algo": "algorithm method learner",
    "algo.inner_lr": "inner_lr fast_lr adaptation_lr task_lr update_lr algo.lr",
    "algo.inner_steps": "inner_steps num_inner_steps adaptation_steps adapt_steps update_step num_updates",
    "algo.hidden": "hidden_dim hidden_size hidden_units n_hidden",
    "algo.smoothing": "label_smoothing",
    "augment.flip": "hflip horizontal_flip random_flip",
    "augment.crop": "random_crop random_resized_crop",
    "augment.jitter": "color_jitter colour_jitter",
    "backbone": "model arch architecture network net encoder feature_extractor",
    "backbone.filters": "n_filters num_filters channels num_channels hid_dim n_channels",
    "data": "dataset dataset_name data_name benchmark",
    "data.root": "data_dir data_path data_root dataset_root dataset_path root path datadir data.path data.dir",
    "data.size": "image_size img_size input_size resolution size data.image_size",
    "episodes": "num_episodes n_episodes test_episodes eval_episodes num_test_episodes n_eval",
    "meta_batch": "batch_size meta_batch_size batch task_batch_size n_tasks num_tasks",
    "norm": "normalization batch_norm bn",
    "optim": "optimizer optimiser",
    "optim.lr": "lr learning_rate outer_lr meta_lr base_lr optimizer.lr",
    "optim.weight_decay": "weight_decay wd",
    "out": "output_dir out_dir output save_dir save_path log_dir logdir result_dir run_dir",
    "patience": "early_stopping early_stop",
    "query": "test_query n_query k_query q_query num_query n_queries num_queries queries kquery",
    "schedule.every": "step_size lr_step decay_every lr_decay_steps decay_steps",
    "schedule.factor": "gamma lr_decay decay_rate lr_gamma lr_decay_rate",
    "schedule.kind": "scheduler lr_scheduler lr_schedule schedule.name",
    "seed": "random_seed manual_seed seeds",
    "shot": "test_shot val_shot eval_shot k_shot n_shot num_shots n_shots kshot nshot shots n_support k",
    "steps": "max_steps iterations num_iterations max_iter n_iter num_steps trainer.max_steps",
    "time": "time_limit max_time budget timeout time_budget",
    "train_query": "train_n_query n_train_query train_queries num_train_queries",
    "train_shot": "train_shots train_k_shot train_n_shot n_train_shots",
    "train_way": "train_ways train_n_way n_train_way",
    "trainer.gradient_clip_val": "grad_clip clip_grad gradient_clip clip max_grad_norm gradient_clip_val",
    "val_every": "eval_every val_interval eval_interval val_freq check_val_every_n_epoch",
    "way": "test_way val_way eval_way test_n_way val_n_way n_way num_ways n_ways nway ways num_classes n_classes n",
}
SENTENCES = {  # where no one setting is meant
    "steps, in meta-iterations: episodes are drawn anew, there are no epochs. Type steps=10000.": (
        "epochs n_epochs num_epochs max_epochs trainer.max_epochs"
    ),
    "trainer. Type trainer=gpu, trainer=cpu or trainer=auto.": "device accelerator cuda gpu",
    "trainer.devices, a process each. Type trainer=ddp trainer.devices=2; one GPU is trainer=gpu.": (
        "gpus n_gpus num_gpus devices world_size nproc_per_node"
    ),
    "no setting is needed, images are in memory. A sweep's runs side by side: hydra/launcher=joblib.": (
        "num_workers workers n_workers n_jobs pin_memory"
    ),
    "backbone.pretrained. Type backbone=torchvision backbone.name=resnet18 backbone.pretrained=true.": (
        "pretrained pretrained_weights imagenet"
    ),
    "init, the folder of a run to begin with. To go on with a run, type resume=FOLDER.": (
        "ckpt ckpt_path checkpoint weights load resume_from resume_from_checkpoint"
    ),
    "trainer.precision. Type trainer.precision=bf16-mixed.": "precision amp fp16 mixed_precision",
    "augment. Type augment.flip=true, augment.crop=0.5, augment.padding=8 or augment.jitter=0.4.": (
        "augmentation augmentations transform transforms"
    ),
    "no setting, a method brings its own: an algorithm of yours may have another, see docs/your-own.md.": (
        "loss loss_fn criterion inner inner_rule inner_optimizer inner_optim"
    ),
    "schedule.kind=table, rates by meta-iteration. Type 'schedule.table={0:0.1,500:1}' schedule.kind=table.": (
        "warmup warmup_steps warmup_epochs warmup_ratio milestones lr_milestones"
    ),
    "experiment, a YAML of your own. Type experiment=FILE.yaml; fsl config to=FILE.yaml writes one.": (
        "config config_file cfg yaml config_path"
    ),
    "a line for each validation. Type val_every=100.": "log_interval log_every print_freq log_freq print_every",
    "logger. Type logger=tensorboard; fsl ls logger shows the others.": "track tracker loggers wandb tensorboard",
}
CHOICES = {  # of a group: what to type, and others' names for it; {} is the name that was typed
    "algo": {
        "algo=protonet": "prototypical proto prototypical_networks protonets pn",
        "algo=matching": "matchingnet matching_networks matchingnetwork mn",
        "algo=relation": "relationnet relation_network relation_networks rn",
        "algo=metaoptnet": "metaoptnet_svm svm",
        "algo=baseline algo.finetune=all": "finetune finetuning fine_tuning",
        "algo=mamlpp": "maml++ maml_plus_plus",
        "algo=metacurvature": "meta_curvature",
        "algo=metalstm": "meta_lstm",
        "algo=l2l": "learned_optimizer learning_to_learn l2o lstm_optimizer",
        "algo=tnet": "t_net mtnet mt_net",
        "algo=gradagree": "gradient_agreement grad_agree",
        "algo=baselinepp": "baseline++ baseline_plus_plus cosine_classifier",
    },
    "data": {
        "data=miniimagenet data.root=FOLDER": "mini mini_imagenet miniimagenet84",
        "data=tieredimagenet data.root=FOLDER": "tiered tiered_imagenet",
        "data=cifar_fs": "cifarfs cifar cifar100",
        "data=cub": "birds cub200 cub_200_2011",
        "data=sinusoid": "sine sin sinusoids",
        "data=folder data.root=FOLDER": "custom imagefolder images own csv",
        "data=texts data.root=FILE.csv": "text nlp sentences jsonl intents",
        "data=embeddings data.root=FILE.npz": "features embedding npz vectors precomputed",
    },
    "backbone": {
        "backbone=conv4": "convnet conv_4 convnet4 cnn cnn4 4conv conv64 conv4_64",
        "backbone=resnet12": "resnet",
        "backbone=timm backbone.name=vit_base_patch16_clip_224.openai data.size=224": "clip clip_vit",
        "backbone=resnet18 backbone.blocks=[1,1,1,1]": "resnet10",
        "backbone=resnet18 backbone.blocks=[3,4,6,3]": "resnet34",
        "backbone=identity": "none no_backbone nothing",
        "backbone=chars": "char characters charcnn char_cnn lstm bilstm",
        "backbone=sentences backbone.name=FOLDER": "bert sbert minilm sentence_transformers transformers",
        "backbone=wrn28_10": "wrn wideresnet wrn_28_10 wide_resnet",
        "backbone=torchvision backbone.name={}": (
            "resnet50 resnet101 resnet152 densenet121 efficientnet_b0 mobilenet_v2 convnext_tiny vgg16 swin_t"
        ),
        "backbone=torchvision backbone.name=vit_b_16 data.size=224": "vit vit_b_16 vit_b16 vit_base transformer",
        "backbone=timm backbone.name=vit_small_patch14_dinov2.lvd142m data.size=518": "dino dinov2 vit_s vit_small",
    },
    "optim": {
        "optim._target_=torch.optim.RMSprop": "rmsprop",
        "optim._target_=torch.optim.NAdam": "nadam",
        "optim._target_=torch.optim.RAdam": "radam",
        "optim._target_=torch.optim.Adagrad": "adagrad",
        "optim._target_=torch.optim.Adamax": "adamax",
        "optim._target_=lion_pytorch.Lion trust=[lion_pytorch], of the package lion-pytorch": "lion",
        "optim=sgd": "nesterov sgd_nesterov",
        "optim=plain": "gd vanilla",
    },
    "trainer": {
        "trainer=gpu": "cuda mps",
        "trainer=ddp trainer.devices=2": "multi_gpu distributed dp",
    },
    "schedule.kind": {
        "schedule.kind=cosine": "cosine cos cosineannealing cosine_annealing cosineannealinglr annealing",
        "schedule.kind=linear": "linear linearlr linear_decay",
        "schedule.kind=step": "step steplr exponential",
        "schedule.kind=table 'schedule.table={0:1,5000:0.1}'": "table multistep multisteplr milestones plateau",
        "schedule.kind=none": "none constant off false",
    },
    "norm": {
        "norm=running": "batch batchnorm bn true",
        "norm=group": "groupnorm gn layer layernorm ln instance instancenorm",
        "norm=none": "false off identity",
        "norm=transductive": "tbn",
    },
    "logger": {"logger=tensorboard": "tb tensor_board", "logger=wandb": "wb"},
}


def setting(word: str) -> str:
    """The setting that another tool's word stands for, within a part too (optim.learning_rate); "" if there is none."""
    meant = _meant(SETTINGS, word) or _meant(SETTINGS, _last(word))
    return "" if meant == word else meant


def sentence(word: str) -> str:
    """What to type for another tool's word that stands for no one setting; "" where there is nothing to say."""
    return _meant(SENTENCES, word) or _meant(SENTENCES, _last(word))


def choice(group: str, name: str) -> str:
    """What to type for what another tool would choose; "" where there is nothing to say."""
    return _meant(CHOICES.get(group, {}), name).replace("{}", name.lower())


def _last(word: str) -> str:
    """trainer.gpus: gpus."""
    return word.rpartition(".")[2] if word.count(".") == 1 else ""


def _meant(table: dict[str, str], word: str) -> str:
    plain = re.sub("[- ]", "_", word.lower().lstrip("-"))
    return next((meant for meant, words in table.items() if plain in words.split()), "")
