# What CI runs.
ci:
    .ci/run

# The server on the demo models.
serve *args:
    cargo run --release -- serve --repository models {{args}}

# Unit, property and integration tests.
test *args:
    cargo nextest run --release --workspace {{args}}

# Real clients against the release binary.
clients *args:
    tests/clients/run {{args}}

# docs/config.md and docs/metrics.md, printed from the code.
docs:
    KINGLET_UPDATE=1 cargo test --release --test generated_docs

# The generated protocol, from proto/.
proto:
    KINGLET_UPDATE=1 cargo test --release --test bootstrap

# The page at /ui/ in Chromium; --pictures takes the screenshots of docs/.
ui *args:
    tests/ui/run {{args}}

# Rules and dashboards against the real Prometheus; --pictures takes the pictures of docs/.
monitoring *args:
    tests/monitoring/run {{args}}

# deploy/grafana/dashboards, written by deploy/grafana/generate.
dashboards:
    tests/monitoring/run --dashboards

# target/image, what the image holds, and from it the image, by buildah; served in a root that has nothing else.
image *args:
    tests/image/run {{args}}

# A release of the commit that is checked out, tested and made into target/release-VERSION; docs/release.md.
release version:
    deploy/release {{version}}

# Whether the release binary is the same from another folder: two builds, or one beside a binary that is there.
reproduce *binary:
    deploy/image/reproduce {{binary}}

# The files of deploy/ against schemas and each other.
deploy *args:
    tests/deploy/run {{args}}

# deploy/kubernetes/base/kinglet.yaml, rendered from the chart.
manifests:
    tests/deploy/run --manifests

# Faults beside a healthy client, each flood for 20 seconds; about 15 minutes.
reliability *args:
    tests/reliability/run --long {{args}}

# What comes into a build, held against deny.toml.
supply:
    tests/supply/run

# A mixture of everything at four fifths of capacity, for an hour, and what must hold afterwards.
soak minutes="60" *args:
    tests/soak/run --minutes {{minutes}} {{args}}

# perf_analyzer over REST and gRPC against the demo models; needs debootstrap.
perf-analyzer:
    tests/clients/perf_analyzer

# Changed inputs against what reads them: models, requests, settings, signatures; each for so long.
fuzz seconds="600" target="all":
    fuzz/run {{target}} {{seconds}}

# The suites of the onnx package against the release binary.
conformance *args:
    tests/conformance/run {{args}}

# The kernels' tests on an emulated processor with AVX-512.
emulated *args:
    tests/emulated/run {{args}}

# The native engine beside other engines; about 15 minutes.
engines *args:
    benches/engines/run {{args}}

# Kinglet beside other servers; about 90 minutes.
peers *args:
    benches/peers/run {{args}}

# Overload, soak, unload, reload and drain; about 35 minutes.
endurance *args:
    benches/endurance/run {{args}}

# What tracing costs a request; about four minutes, needs h2load.
tracing *args:
    benches/tracing/run {{args}}

# The checks before a commit.
lint:
    cargo fmt --all -- --check
    cargo clippy --release --workspace --all-targets -- -D warnings
