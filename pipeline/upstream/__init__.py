"""Ultralytics at arm's length: all that subclasses or changes it, but for the trainer in `pipeline.train`.

    environment    the process: no telemetry, no code from checkpoints, all cores; devices
    checkpoints    source weights: found, downloaded, verified, loaded
    predictor      results with the best class of each box, and with every class
    loader         images for a training on a CPU, loaded in this process

Whatever has an underscore in front, and whatever is set from outside, may change in any version of Ultralytics. This
is all of it that the project overrides, calls or sets, and why; a test compares the list with the installed version and
with the code. It asks to be read again before the bound in pyproject.toml is raised.

    engine.model.Model.predictor                            the cost is that of Ultralytics' own predictor, not of ours
    engine.trainer.BaseTrainer._build_train_pipeline        channels last on a CPU, before the optimizer is made
    engine.trainer.BaseTrainer._handle_nan_recovery         a loss that is no number ends the training
    engine.trainer.BaseTrainer._model_train                 BatchNorm keeps its statistics or not, part by part
    engine.trainer.BaseTrainer._setup_scheduler             a short phase changes its rate step by step
    engine.trainer.BaseTrainer._setup_train                 what was frozen is noted, and exact weights are put back
    engine.trainer.BaseTrainer.freeze_layer_names           which BatchNorm layers are frozen
    engine.trainer.BaseTrainer.lf                           the rate of a share of an epoch
    engine.validator.BaseValidator.match_predictions.iouv   all that this method asks of a validator, on a stand-in
    engine.validator.BaseValidator.plots                    plots of the last epoch, though not of those before
    nn.tasks.DetectionModel._predict_once                   start behind the layers whose features are cached
    nn.tasks.DetectionModel.criterion                       a short phase weighs both heads alike
    utils.loss.E2ELoss.final_o2m                            the same
    utils.loss.E2ELoss.o2m                                  the same
    utils.loss.E2ELoss.o2m_copy                             the same
    utils.loss.E2ELoss.o2o                                  the same
    utils.torch_utils.ModelEMA.decay                        a short phase averages over the steps that it has
    utils.torch_utils.NUM_THREADS                           all cores, where Ultralytics leaves one out

Objects of Ultralytics become ours by a change of `__class__`: a data loader here; in `train` a model, a data set and
a validator, which the trainer makes itself.
"""
