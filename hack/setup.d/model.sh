# shellcheck shell=bash
# What measuring the example's model needs beyond base: fonts it never saw, and a Python that can make
# environments (examples/inference/model). Sourced by hack/setup.

setup_model() {
    setup_packages fonts-dejavu-core fonts-freefont-ttf fonts-liberation python3-venv
}
