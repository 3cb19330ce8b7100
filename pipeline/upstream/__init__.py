"""Hold all code that subclasses or changes Ultralytics, except for the trainer in `pipeline.train`.

    environment    sets up the process: no telemetry, no code from checkpoints, threads; checks devices
    checkpoints    finds, downloads, verifies and loads source weights
    unfit          explains why weights are unsuitable, and what would work
    predictor      returns results with the best class of each box, and with every class
    loader         loads images in this process, for training without worker processes

Names with a leading underscore and attributes set from outside may change in any version of Ultralytics. This list
names all of those that the project overrides, calls or sets, and why. A test compares it with the installed version
and with the code. Review the list before raising the bound in pyproject.toml.

    engine.model.Model.predictor                            measure the cost of Ultralytics' own predictor, not of ours
    engine.trainer.BaseTrainer._build_train_pipeline        channels last on a CPU, before the optimizer is created
    engine.trainer.BaseTrainer._handle_nan_recovery         a NaN or infinite loss ends the training
    engine.trainer.BaseTrainer._model_train                 BatchNorm updates its statistics or not, part by part
    engine.trainer.BaseTrainer._setup_scheduler             long and last short phases lower the rate with every step
    engine.trainer.BaseTrainer._setup_train                 hash the frozen tensors, restore the exact weights, offer
                                                            weights for the check of mixed precision
    engine.trainer.BaseTrainer.freeze_layer_names           which BatchNorm layers are frozen
    engine.trainer.BaseTrainer.lf                           the rate at a fraction of an epoch
    engine.validator.BaseValidator.match_predictions.iouv   all that this method needs of a validator, on a stand-in
    engine.validator.BaseValidator.plots                    plots of the last epoch only if they are wanted
    nn.tasks.DetectionModel._predict_once                   start behind cached layers; compute in bfloat16
    nn.tasks.DetectionModel.criterion                       a short phase weighs both heads equally
    utils.WEIGHTS_DIR                                       the check of mixed precision on a GPU finds local weights
    utils.loss.E2ELoss.final_o2m                            the same
    utils.loss.E2ELoss.o2m                                  the same
    utils.loss.E2ELoss.o2m_copy                             the same
    utils.loss.E2ELoss.o2o                                  the same
    utils.torch_utils.ModelEMA.decay                        the average spans a share of the phase
    utils.torch_utils.NUM_THREADS                           the number of threads; Ultralytics leaves a core idle

Some of Ultralytics' objects become ours by assigning `__class__`: a data loader here; a model, a dataset and a
validator, which the trainer creates itself, in `train`.
"""
