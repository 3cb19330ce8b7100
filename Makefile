# The dependency graph of all stages. `make` without a target prints the help.
#
#   data/raw ─ convert ─ augment ─ train ─ validate ─┬─ inspect
#                                                    └─ export ─ report
#
# A stage runs again only if its own slice of the config, its code or its input changed. Targets are real
# files that a stage writes last, so a target that exists is complete. Limits: make does not watch package versions, and
# `make -n` lists too much because `params` always runs (`make params`, then `make -n -o params all` is exact).
# After a cosmetic edit of a stage's code, `make -t all` marks everything as up to date.

CONFIG ?= configs/sample.yaml
DEVICE ?=
WORKERS ?=
AGAINST ?=
VERBOSE ?=
# For `make label` and `make inspect`.
PORT ?=
# For `make label` only.
AS ?=
NOAPP ?=
OPEN ?=
# For `make new` only.
SOURCE ?=
FORMAT ?=
# For `make study` only.
STUDY ?=
JOBS ?= 1
ON ?= $(if $(RAY_ADDRESS),ray)

NAME := $(basename $(notdir $(CONFIG)))
RUN := runs/$(NAME)
VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/installed.txt
UV := $(shell command -v uv 2>/dev/null)

OPENING := (
CLOSING := )

# Refuse unknown variables: with `config=configs/mine.yaml`, the sample would run instead.
KNOWN := CONFIG DEVICE WORKERS AGAINST VERBOSE PORT AS NOAPP OPEN SOURCE FORMAT STUDY JOBS ON RAY_ADDRESS
GIVEN := $(foreach given,$(MAKEOVERRIDES),$(firstword $(subst =, ,$(given))))
STRAY := $(strip $(foreach name,$(filter-out $(KNOWN) PIPELINE PYTHON VENV UV,$(GIVEN)),$(if $(filter command,$(origin $(name))),$(name))))
ifneq ($(STRAY),)
$(error $(firstword $(STRAY)): no such variable; there are: $(KNOWN))
endif
ifneq ($(word 2,$(CONFIG)),)
$(error CONFIG=$(CONFIG): make takes no spaces in the name of a file; rename it)
endif
# The name of the run goes into commands of the shell, among them `rm -rf`.
ifneq ($(strip $(foreach letter,* ? [ ] { } $(OPENING) $(CLOSING) & ; | < > ! ' " `,$(findstring $(letter),$(CONFIG)))),)
$(error CONFIG=$(CONFIG): the name may hold no quotes, brackets or wildcards; rename the file)
endif
ifeq ($(wildcard $(CONFIG))$(filter new,$(MAKECMDGOALS)),)
$(error CONFIG=$(CONFIG): no such file; $(if $(wildcard configs/$(NAME).yaml),write CONFIG=configs/$(NAME).yaml. ,)$(if $(wildcard configs/*.yaml),there are: $(wildcard configs/*.yaml),run make in the project's folder))
endif
ifeq ($(filter %.yaml %.yml,$(CONFIG)),)
$(error CONFIG=$(CONFIG): name one file that ends in .yaml)
endif

ifneq ($(filter label,$(MAKECMDGOALS)),)
ifeq ($(shell grep -sE "(^|[{,])[[:space:]]*[\"']?label[\"']? *:" $(CONFIG)),)
$(error $(CONFIG): label: is missing; name the folder with more images, as in `label: {pool: data/raw/more}`)
endif
endif
ifneq ($(AGAINST),)
ifeq ($(wildcard $(AGAINST)/metrics.json),)
$(error AGAINST=$(AGAINST): no validated run; $(if $(wildcard runs/*/metrics.json),there are: $(patsubst %/metrics.json,%,$(wildcard runs/*/metrics.json)),validate one first))
endif
endif

PIPELINE := $(PYTHON) -m pipeline
LOUD := $(filter-out 0,$(VERBOSE))
OPTIONS := --config $(CONFIG) $(if $(LOUD),--verbose)
QUIET := $(if $(LOUD),,@)
# `$(call stage,NAME)` runs a stage and records that it ran.
stage = $(eval RAN += $1)$(QUIET)$(PIPELINE) $1 $(OPTIONS)
ON_DEVICE := $(if $(DEVICE),--device $(DEVICE))
IN_WORKERS := $(if $(WORKERS),--workers $(WORKERS))
# From the command line only: make itself sets AS, to the assembler, and many machines set PORT.
FOR_TOOL := $(if $(filter command,$(origin AS)),$(if $(AS),--as $(AS)))
ON_PORT := $(if $(filter command,$(origin PORT)),$(if $(PORT),--port $(PORT)))
COMPARED := $(if $(AGAINST),--against $(AGAINST))

# The code of each stage and everything it imports (a test checks this), except what every stage uses: config, run,
# errors, logs.
BASE_CODE := pipeline/boxes.py pipeline/files.py pipeline/orientation.py pipeline/device/runner/headers.py
FORMATS := $(wildcard pipeline/formats/*.py) pipeline/database.py pipeline/walk.py
PARALLEL := pipeline/parallel.py pipeline/device/runner/quota.py
UPSTREAM := pipeline/upstream/__init__.py pipeline/upstream/checkpoints.py pipeline/upstream/environment.py pipeline/upstream/unfit.py $(PARALLEL)
IOU := pipeline/metrics/__init__.py pipeline/metrics/iou.py
MATCHING := $(IOU) pipeline/metrics/matching.py pipeline/metrics/precision_recall.py
RECORDS := $(addprefix pipeline/records/,__init__.py base.py)
TRAINING := $(RECORDS) $(addprefix pipeline/records/,receipt.py tile_account.py training.py)
FIGURES := $(RECORDS) $(addprefix pipeline/records/,coco.py figures.py metrics.py training.py)
LABELS := $(FIGURES) $(addprefix pipeline/records/,comparison.py errors.py predictions.py)
SAMPLE_CODE := $(wildcard pipeline/extras/*.py pipeline/extras/sample/*.py) pipeline/files.py pipeline/pixels.py
CONVERT_CODE := $(wildcard pipeline/convert/*.py pipeline/image_files/*.py) $(BASE_CODE) $(RECORDS) pipeline/records/receipt.py $(FORMATS) $(IOU) pipeline/fixes.py pipeline/inputs.py $(wildcard pipeline/labels/*.py) $(PARALLEL)
TILING := $(wildcard pipeline/tiling/*.py) $(RECORDS) $(addprefix pipeline/records/,tile_account.py tiles.py) $(PARALLEL) pipeline/pixels.py
AUGMENT_CODE := $(wildcard pipeline/augment/*.py) $(BASE_CODE) $(TILING)
TRAIN_CODE := $(wildcard pipeline/train/*.py pipeline/probing/*.py) pipeline/pixels.py $(BASE_CODE) pipeline/object_sizes.py $(UPSTREAM) pipeline/upstream/loader.py $(TRAINING) $(MATCHING) pipeline/metrics/bootstrap.py $(addprefix pipeline/records/,coco.py figures.py) pipeline/history.py
DEVICE_CODE := $(wildcard pipeline/device/*.py pipeline/device/runner/*.py)
VALIDATE_CODE := $(wildcard pipeline/validate/*.py) $(BASE_CODE) pipeline/object_sizes.py $(addprefix pipeline/device/runner/,base.py tiles.py) $(FORMATS) $(UPSTREAM) pipeline/upstream/predictor.py $(wildcard pipeline/metrics/*.py) $(LABELS) pipeline/records/tiles.py pipeline/pixels.py
EXPORT_CODE := $(wildcard pipeline/export/*.py) $(BASE_CODE) pipeline/object_sizes.py $(DEVICE_CODE) $(UPSTREAM) pipeline/upstream/predictor.py $(MATCHING) pipeline/metrics/bootstrap.py $(FIGURES) $(addprefix pipeline/records/,benchmark.py manifest.py receipt.py tiles.py) pipeline/pixels.py
REPORT_CODE := $(wildcard pipeline/report/*.py) $(BASE_CODE) $(MATCHING) pipeline/report/page.html.jinja pipeline/history.py $(LABELS) $(addprefix pipeline/records/,benchmark.py label_rounds.py manifest.py receipt.py tiles.py) pipeline/pixels.py
SAMPLE := data/raw/sample/annotations/test.json
LARGE := data/raw/sample-large/annotations/test.json
# Draw the sample only for configs that use it.
drawn = $(if $(shell grep -sE '^[^\#]*source: *["'"'"']?data/raw/$1/?["'"'"']?([^[:alnum:]/_.-]|$$)' $(CONFIG)),$2)
DRAWN := $(call drawn,sample,$(SAMPLE)) $(call drawn,sample-large,$(LARGE))

TARGETS := help setup new params sample sample-large convert augment train rank validate inspect export report label all test test-fast lint bench bench-convert bench-augment bench-export study starter-weights litert device-python tensorrt database clean

.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := help
.NOTPARALLEL:  # a run has one writer, and each stage uses all cores
.PHONY: $(TARGETS)

# A suggestion for a misspelled target; none if this Python cannot run.
NEAR := import sys; from pipeline.errors import did_you_mean; print(did_you_mean(sys.argv[1], sys.argv[2:]).replace(chr(39), ""))
.DEFAULT:
	@echo "error: no target or file '$@'; \`make help\` lists the targets$$(python3 -c '$(NEAR)' '$@' $(TARGETS) 2>/dev/null)" >&2; exit 2

help:  ## show this page
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  CONFIG=configs/NAME.yaml chooses the experiment (now $(CONFIG)); results go to runs/NAME."
	@echo "  DEVICE=cpu|0|mps and WORKERS=N choose the device and the number of worker processes; changing them reruns nothing."
	@echo "  VERBOSE=1 shows the output of libraries instead of logging it to runs/NAME/logs."
	@echo "  AGAINST=runs/OTHER compares this run with another one on the same images (the interval covers images, not seeds)."

# --- Installation ---------------------------------------------------------------------------------

setup: $(INSTALLED)  ## create .venv and install everything; other targets do this if needed

PINNED := --constraint constraints.txt --editable '.[dev]'
# `installed.txt` is both the target and the list of installed packages.
$(INSTALLED): pyproject.toml constraints.txt
ifneq ($(UV),)
	@test -x $(PYTHON) || "$(UV)" venv --quiet --seed --no-python-downloads $(VENV)
# Without an NVIDIA GPU, uv takes PyTorch from PyTorch's own index: the same version without 4 GB of CUDA.
	@echo "setup: installing into $(VENV); if PyTorch's own index cannot be reached, an error says so and does no harm"
	@"$(UV)" pip install --python $(PYTHON) --torch-backend=auto $(PINNED) || { \
		echo "setup: installing PyTorch's standard wheel instead, which includes CUDA"; \
		"$(UV)" pip install --python $(PYTHON) $(PINNED); }
else
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --disable-pip-version-check $(PINNED)
endif
	@$(PYTHON) -m pip freeze --disable-pip-version-check --exclude-editable > $@.partial
	@mv $@.partial $@
	@echo "setup: $$(wc -l < $@ | tr -d ' ') packages in $(VENV)"

database: $(INSTALLED)  ## install FiftyOne's database if its own installer could not download it
	$(PYTHON) -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev,database]'

# LiteRT's converter needs an older torch than ours and a `typing-extensions` that FiftyOne refuses. So it has its own
# environment. The main environment checks the result.
LITERT := .venv-litert
LITERT_PACKAGES := 'ultralytics-opencv-headless>=8.4.190,<8.5' 'litert-torch>=0.10' 'ai-edge-litert>=2.3' 'ai-edge-quantizer>=0.10'
litert: $(LITERT)/installed.txt  ## install the environment that converts to LiteRT (a few GB)
$(LITERT)/installed.txt: | $(INSTALLED)
ifneq ($(UV),)
	test -x $(LITERT)/bin/python || "$(UV)" venv --quiet --seed --no-python-downloads --python $(PYTHON) $(LITERT)
	"$(UV)" pip install --python $(LITERT)/bin/python $(LITERT_PACKAGES)
else
	test -x $(LITERT)/bin/python || $(PYTHON) -m venv $(LITERT)
	$(LITERT)/bin/python -m pip install --disable-pip-version-check $(LITERT_PACKAGES)
endif
	$(LITERT)/bin/python -m pip freeze --disable-pip-version-check > $@.partial
	mv $@.partial $@

# pip chooses package versions that still support this Python.
device-python: .venv-device/installed.txt  ## install the oldest supported Python of devices (3.8), to test bundles
.venv-device/installed.txt:
ifneq ($(UV),)
	"$(UV)" venv --quiet --seed --python 3.8 .venv-device
else
	python3.8 -m venv .venv-device
endif
	.venv-device/bin/python -m pip install --disable-pip-version-check numpy opencv-python-headless onnxruntime
	.venv-device/bin/python -m pip freeze --disable-pip-version-check > $@.partial
	mv $@.partial $@

tensorrt: $(INSTALLED)  ## install NVIDIA's parser and builder, to check ONNX models without a GPU (proprietary; x86-64)
	$(PYTHON) -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev,tensorrt]'

# --- Stages ---------------------------------------------------------------------------------------

# CONFIG, if given, is the file to write. REST is the rest of a SOURCE with spaces and without quotes.
REST = $(filter-out $(TARGETS),$(MAKECMDGOALS))
new: $(INSTALLED)  ## look at SOURCE=data/raw/mine and write configs/mine.yaml to start from
	@test -n "$$SOURCE" || { echo "error: name the folder with your images and labels: make new SOURCE=data/raw/mine" >&2; exit 2; }
	@test -z "$(REST)" || { echo "error: '$(firstword $(REST))' is not a target; if it belongs to a folder's name, write quotes: make new SOURCE='$$SOURCE $(REST)'" >&2; exit 2; }
	@$(PIPELINE) new "$$SOURCE" $(if $(FORMAT),--format "$$FORMAT") $(if $(filter command,$(origin CONFIG)),--config $(CONFIG))

convert: $(RUN)/dataset/data.yaml  ## convert annotations to an Ultralytics dataset, with a receipt
augment: $(RUN)/augmented/data.yaml  ## make more training images by transforming the existing ones
train: $(RUN)/model.pt  ## fine-tune in phases, with frozen layers
validate: $(RUN)/metrics.json $(if $(AGAINST),$(RUN)/comparison.json)  ## compute COCO metrics on val and test, with confidence intervals
export: $(RUN)/export/manifest.json  ## write bundles for the device, checked against the model on real images
report: $(RUN)/report/index.html  ## show the run on one HTML page
all: validate export report  ## run every stage from convert to export and report
convert augment train validate export report:
	@$(if $(filter $@,$(RAN)),:,echo "$@: up to date in $(RUN)")

# Always runs: the result depends on weights that the config need not name.
rank: $(RUN)/augmented/data.yaml  ## score pretrained weights (`rank.weights`) and suggest a freeze depth
	$(call stage,rank) $(ON_DEVICE)

inspect: $(RUN)/metrics.json $(RUN)/params/inspect.json  ## open the run in FiftyOne and tag what to fix
	$(call stage,inspect) $(ON_DEVICE) $(COMPARED) $(ON_PORT)

# With OPEN=1 it has no prerequisites: a batch that is being corrected needs no new model.
OPENED := $(filter-out 0,$(OPEN))
label: $(if $(OPENED),$(INSTALLED),$(RUN)/metrics.json)  ## choose images of a folder to label next, and draw boxes to correct (OPEN=1: the last batch again)
	$(call stage,label) $(ON_DEVICE) $(IN_WORKERS) $(FOR_TOOL) $(if $(filter-out 0,$(NOAPP)),--no-app) $(if $(OPENED),--open) $(ON_PORT)

bench-export: $(RUN)/export/manifest.json $(RUN)/report/index.html  ## measure the speed of each exported model and add it to the report
	$(call stage,export) --bench
	$(call stage,report) $(COMPARED)

# Each trial is a separate make in its own folder, so this target needs no prerequisites.
study: | $(INSTALLED)  ## compare training setups: STUDY=configs/studies/NAME.yaml, JOBS=N trials at a time, ON=ray on a cluster
	@test -n '$(STUDY)' || { echo "error: name the study: make study STUDY=configs/studies/NAME.yaml" >&2; exit 2; }
	@$(PIPELINE) study --study '$(STUDY)' --jobs '$(JOBS)' $(if $(ON),--on '$(ON)') $(ON_DEVICE)

sample: $(SAMPLE)  ## draw the sample dataset (automatic if a config needs it)
$(SAMPLE): $(SAMPLE_CODE) | $(INSTALLED)
	$(QUIET)$(PIPELINE) sample

sample-large: $(LARGE)  ## draw large boards with small defects (automatic if a config needs them)
$(LARGE): $(SAMPLE_CODE) | $(INSTALLED)
	$(QUIET)$(PIPELINE) sample --large

starter-weights: $(INSTALLED)  ## train data/weights/starter-yolo26n.pt again on synthetic scenes (takes hours)
	$(QUIET)$(PIPELINE) starter-weights $(ON_DEVICE) $(IN_WORKERS) $(if $(LOUD),--verbose)

# A stage depends on its slice of the config, not on the whole file. `params` rewrites only the slices that changed, and
# checks other inputs: source, fixes, splits, weights. The empty recipe makes make check the dates again.
$(RUN)/params/%.json: params ;
params: $(DRAWN) | $(INSTALLED)
	@$(PIPELINE) params --config $(CONFIG) $(COMPARED)

$(RUN)/dataset/data.yaml: $(RUN)/params/convert.json $(RUN)/params/source.json $(RUN)/params/beside.json $(CONVERT_CODE) $(DRAWN)
	$(call stage,convert) $(IN_WORKERS)

$(RUN)/augmented/data.yaml: $(RUN)/params/augment.json $(RUN)/dataset/data.yaml $(AUGMENT_CODE)
	$(call stage,augment) $(IN_WORKERS)

$(RUN)/model.pt: $(RUN)/params/train.json $(RUN)/params/weights.json $(RUN)/augmented/data.yaml $(TRAIN_CODE)
	$(call stage,train) $(ON_DEVICE) $(IN_WORKERS)

$(RUN)/metrics.json: $(RUN)/params/validate.json $(RUN)/params/retention.json $(RUN)/model.pt $(RUN)/dataset/data.yaml $(VALIDATE_CODE)
	$(call stage,validate) $(ON_DEVICE)

$(RUN)/comparison.json: $(RUN)/metrics.json $(RUN)/params/against.json $(wildcard $(AGAINST)/metrics.json)
	$(call stage,validate) $(ON_DEVICE) $(COMPARED)

# Depends on metrics.json because the bundle contains the thresholds that validation chose.
$(RUN)/export/manifest.json: $(RUN)/params/export.json $(RUN)/metrics.json $(RUN)/model.pt $(RUN)/dataset/data.yaml $(EXPORT_CODE)
	$(call stage,export)

# The page shows the export if one exists already or if this make writes one.
EXPORTED := $(if $(filter all export bench-export,$(MAKECMDGOALS)),$(RUN)/export/manifest.json,$(wildcard $(RUN)/export/manifest.json))
$(RUN)/report/index.html: $(RUN)/params/report.json $(RUN)/params/against.json $(RUN)/metrics.json $(if $(AGAINST),$(RUN)/comparison.json) $(wildcard $(RUN)/label/rounds.json) $(EXPORTED) $(REPORT_CODE)
	$(call stage,report) $(COMPARED)

# --- Upkeep ---------------------------------------------------------------------------------------

ON_ALL_CORES := --numprocesses auto --dist loadfile --no-loadscope-reorder
test: $(INSTALLED)  ## run all tests
	$(PYTHON) -m pytest $(ON_ALL_CORES)

test-fast: $(INSTALLED)  ## run the tests that train nothing, in under ten minutes on two cores
	$(PYTHON) -m pytest $(ON_ALL_CORES) -m "not slow"

lint: $(INSTALLED)  ## run ruff and mypy
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

bench: $(INSTALLED)  ## print the results table of the README from runs/
	$(PYTHON) benchmarks/results.py

PEERS := .venv-peers/installed.txt
$(PEERS): benchmarks/peers.txt
	python3 -m venv .venv-peers
	.venv-peers/bin/python -m pip install --disable-pip-version-check --requirement benchmarks/peers.txt
	touch $@

bench-convert: $(INSTALLED) $(PEERS)  ## compare conversion with other tools, into benchmarks/convert.md
	@# In memory, because creating files on other disks takes longer and varies more than the conversion itself.
	TMPDIR=$(or $(wildcard /dev/shm),$(TMPDIR)) $(PYTHON) benchmarks/convert.py | tee benchmarks/convert.md

bench-augment: $(INSTALLED)  ## compare augmentation with a bare loop, into benchmarks/augment.md
	$(PYTHON) benchmarks/augment.py | tee benchmarks/augment.md

# A batch for a labelling tool.
LAID_OUT := $(patsubst %/images,%,$(firstword $(wildcard $(RUN)/label/*/images)))
clean:  ## delete this config's run; keep other runs, data and .venv
	@test -z '$(LAID_OUT)' || { echo "error: $(LAID_OUT): may hold labels that are saved nowhere else; save them, then delete that folder" >&2; exit 1; }
	@made_by=$$(sed -n 's/^ *"config": "\(.*\)"$$/\1/p' $(RUN)/params/made_by.json 2>/dev/null); test ! -f "$$made_by" || test "$$made_by" -ef $(CONFIG) || { echo "error: $(RUN): was made by $$made_by, not by $(CONFIG); name that file" >&2; exit 1; }
	rm -rf $(RUN)
