# Trains the four models of suite.toml; about two minutes on one core.
set -e
gibbon=${GIBBON:-gibbon}
for half in a b; do
    for net in deep linear; do
        $gibbon train --model nets.py:$net --dataset data/half-$half.npz --layout NHW \
            --validation data/validation.npz --objective standard --epochs ${EPOCHS:-8} \
            --no-tensorboard --output data/$net-$half
    done
done
