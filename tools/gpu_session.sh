#!/bin/sh
# What to test and measure on a machine with one GPU, in two calls of at most nine minutes each.

usage() {
    cat <<'TEXT'
Usage: sh tools/gpu_session.sh 1 [OUTPUT]
       sh tools/gpu_session.sh 2 TRAIN TEST [OUTPUT]

Part 1 runs the tests that need a GPU, and measures the sampler, the balanced feature pyramid, and
what Libra R-CNN costs next to its baseline, with and without mixed precision.

Part 2 trains libra_r50 and its baseline, with a ResNet-18 of random weights and two seeds each, and
compares them. TRAIN and TEST are data sets such as coco:train.json,images. All paths are relative
to the folder of the project.

Each part takes nine minutes at most: a step that would take longer is stopped. The output of each
step is written to OUTPUT/<step>.log (default: output/gpu_session). The exit status is 1 if a step
failed or was stopped.

Environment variables:
  PYTHON   the interpreter of libra_d2's environment (default: .venv/bin/python)
  MINUTES  the length of a part (default: 9)
TEXT
}

mistake() {
    echo "error: $1" >&2
    usage >&2
    exit 2
}

part=${1:-}
case $part in
1)
    [ $# -le 2 ] || mistake "part 1 takes at most one argument, OUTPUT"
    output=${2:-output/gpu_session}
    ;;
2)
    [ $# -eq 3 ] || [ $# -eq 4 ] || mistake "part 2 takes TRAIN, TEST and at most OUTPUT"
    train=$2 test=$3 output=${4:-output/gpu_session}
    ;;
-h | --help)
    usage
    exit 0
    ;;
*) mistake "the first argument must be 1 or 2, got '$part'" ;;
esac

cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-.venv/bin/python}
end=$(($(date +%s) + ${MINUTES:-9} * 60))
failed=0
mkdir -p "$output" || exit 2

"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
    echo "error: torch must see a CUDA device, but $python finds none" >&2
    exit 2
}
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader

# step NAME SECONDS COMMAND...: run a command, for SECONDS and until the end of the part at most.
step() {
    name=$1 seconds=$2
    shift 2
    left=$((end - $(date +%s)))
    [ "$left" -lt "$seconds" ] && seconds=$left
    if [ "$seconds" -lt 5 ]; then
        echo "$name: skipped, because the time is over"
        failed=1
        return
    fi
    began=$(date +%s)
    timeout "$seconds" "$@" >"$output/$name.log" 2>&1
    status=$?
    echo "$name: exit status $status after $(($(date +%s) - began)) s: $output/$name.log"
    tail -n 12 "$output/$name.log"
    [ "$status" -eq 0 ] || failed=1
}

libra() {
    name=$1 seconds=$2
    shift 2
    step "$name" "$seconds" "$python" -m libra_d2.cli.main "$@"
}

costs() {
    name=$1
    shift
    libra "$name" 100 benchmark --device cuda --size 800x1216 --batch-size 2 --repeats 10 \
        --output "$output/$name.json" "$@" \
        --config-file configs/ablations/baseline.yaml configs/libra_r50.yaml
}

if [ "$part" = 1 ]; then
    step tests 150 "$python" -m pytest -q -m gpu -p no:cacheprovider tests
    step sampling 40 "$python" benchmarks/bm_sampling.py --device cuda
    step bfp 60 "$python" benchmarks/bm_bfp.py --device cuda
    # The format channels-last is not among these: --fuse of the command acts on a CPU only.
    costs costs_float32
    costs costs_amp --amp
    step train_step 60 "$python" benchmarks/bm_train_step.py --device cuda
else
    cat >"$output/variants.yaml" <<'TEXT'
variants:
  baseline:
    MODEL.BFP.ENABLED: False
    MODEL.RPN.SAMPLER.NEG_POS_UB: -1.0
    MODEL.ROI_HEADS.SAMPLER.POSITIVES: random
    MODEL.ROI_HEADS.SAMPLER.NEGATIVES: random
    MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE: smooth_l1
  libra: {}
TEXT
    # Without pretrained weights, batch norms must be trained, and no layer may be frozen.
    libra experiment 530 experiment --base configs/libra_r50.yaml \
        --variants "$output/variants.yaml" --baseline baseline --seeds 2 \
        --train "$train" --test "$test" --output "$output/experiment" \
        MODEL.DEVICE cuda MODEL.WEIGHTS "" MODEL.RESNETS.DEPTH 18 \
        MODEL.RESNETS.RES2_OUT_CHANNELS 64 MODEL.RESNETS.NORM BN MODEL.BACKBONE.FREEZE_AT 0 \
        INPUT.MIN_SIZE_TRAIN "(320,)" INPUT.MAX_SIZE_TRAIN 533 INPUT.MIN_SIZE_TEST 320 \
        INPUT.MAX_SIZE_TEST 533 SOLVER.IMS_PER_BATCH 8 SOLVER.BASE_LR 0.01 SOLVER.MAX_ITER 400 \
        SOLVER.STEPS "(300,)" SOLVER.WARMUP_ITERS 100 SOLVER.CLIP_GRADIENTS.ENABLED True \
        SOLVER.AMP.ENABLED True
fi
exit "$failed"
