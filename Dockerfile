# One image for `carillon migrate`, `carillon api` and `carillon worker`.
FROM python:3.13-slim AS install
WORKDIR /source
COPY requirements.lock ./
RUN python -m venv /opt/carillon \
 && /opt/carillon/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock
COPY pyproject.toml README.md settings.py cli.py contacts_command.py automations_command.py rehearse_command.py pytest_carillon.py local_stack.py programs.py backups.py worker.py ./
COPY telemetry telemetry
COPY marketing marketing
COPY database database
COPY channels channels
COPY activities activities
COPY workflows workflows
COPY automations automations
COPY rehearsals rehearsals
COPY api api
COPY examples examples
RUN /opt/carillon/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin carillon
COPY --from=install /opt/carillon /opt/carillon
ENV PATH=/opt/carillon/bin:$PATH \
    CARILLON_LOG_FORMAT=json
USER carillon
EXPOSE 8000
# An API answers over HTTP, a worker over its metrics: each service says how it is checked (docker-compose.yml).
HEALTHCHECK NONE
ENTRYPOINT ["carillon"]
CMD ["--help"]
