"""Settings that hold everywhere; whatever differs between installations comes from the environment."""

from __future__ import annotations

import os
from pathlib import Path

from celery.schedules import crontab
from csp.constants import NONE, SELF

from opsmap.settings.environment import require_environment

BASE_DIR = Path(__file__).resolve().parent.parent.parent
_env = require_environment(os.environ)

SECRET_KEY = _env["OPSMAP_SECRET_KEY"]
DEBUG = _env["OPSMAP_DEBUG"]
ALLOWED_HOSTS = _env["OPSMAP_ALLOWED_HOSTS"]
CSRF_TRUSTED_ORIGINS = _env["OPSMAP_CSRF_TRUSTED_ORIGINS"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "channels",
    "csp",
    "apps.audit",
    "apps.orgs",
    "apps.maps",
    "apps.gateways",
    "apps.rbac",
    "apps.operations",
    "apps.proposals",
]

# Django's own and two others', as they are best called under ASGI.
MIDDLEWARE = [
    "opsmap.middleware.SecurityMiddleware",
    "opsmap.middleware.StaticFilesMiddleware",
    "opsmap.middleware.CSPMiddleware",
    "opsmap.middleware.SessionMiddleware",
    "opsmap.middleware.CommonMiddleware",
    "opsmap.middleware.CsrfViewMiddleware",
    "opsmap.middleware.AuthenticationMiddleware",
    "opsmap.middleware.MessageMiddleware",
    "opsmap.middleware.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "opsmap.urls"
ASGI_APPLICATION = "opsmap.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# Data. One pool a process: under ASGI each request runs in a thread of its own, and without a pool would connect anew.
DATABASES = {
    "default": {
        **_env["OPSMAP_DATABASE_URL"],
        "ENGINE": "opsmap.postgresql",
        "OPTIONS": {
            **_env["OPSMAP_DATABASE_URL"]["OPTIONS"],
            # Only for statements that ask for it (opsmap.lib.prepared), and those at once.
            "prepare_threshold": 1,
            "pool": {"min_size": 1, "max_size": _env["OPSMAP_DB_POOL_SIZE"], "timeout": 10},
        },
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"

# People
AUTH_USER_MODEL = "orgs.User"
# "Email is not unique": it is, by a constraint on its lower case (orgs.User.Meta).
SILENCED_SYSTEM_CHECKS = ["auth.W004"]
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", "apps.rbac.backends.RoleBackend"]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "orgs:sign-in"
LOGIN_REDIRECT_URL = "operations:map-list"
LOGOUT_REDIRECT_URL = "orgs:sign-in"

# Browser security
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _env["OPSMAP_SECURE_COOKIES"]
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if _env["OPSMAP_SECURE_COOKIES"] else None
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "manifest-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    },
}

# Files of the pages
STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
# Served from where they are: no collectstatic between a clone and a page.
WHITENOISE_USE_FINDERS = True

# The API
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "apps.orgs.authentication.BearerTokenAuthentication",
        "apps.orgs.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "EXCEPTION_HANDLER": "opsmap.lib.problems.problem_handler",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 8 * 1024 * 1024

# Redis: hints and the work queue, never the truth
REDIS_URL = _env["OPSMAP_REDIS_URL"]
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        # redis-py's own default of 5 s would cut idle subscribers (django/channels_redis#422).
        "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_timeout": None}]},
    },
}
CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://", 1).replace("?db=", "?virtual_host=", 1)
CELERY_TASK_IGNORE_RESULT = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TASK_TIME_LIMIT = 60
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE = {
    # Each is a safety net: what it repairs normally happens by an event long before.
    "poll-running-jobs": {"task": "gateways.poll_running_jobs", "schedule": 2.0, "options": {"expires": 2}},
    "sweep-commands": {"task": "gateways.sweep_commands", "schedule": 5.0, "options": {"expires": 5}},
    "renew-certificates": {"task": "gateways.renew_certificates", "schedule": 10.0, "options": {"expires": 10}},
    "tell-expiring-certificates": {
        "task": "gateways.tell_expiring_certificates",
        "schedule": crontab(minute=7),
        "options": {"expires": 600},
    },
    "sweep-operations": {"task": "operations.sweep_operations", "schedule": 10.0, "options": {"expires": 10}},
    "sweep-discoveries": {"task": "proposals.sweep_discoveries", "schedule": 5.0, "options": {"expires": 5}},
    "end-maintenance": {"task": "operations.end_maintenance", "schedule": 10.0, "options": {"expires": 10}},
}

# The link to gateways
PKI_DIR = _env["OPSMAP_PKI_DIR"]
LINK_BIND = _env["OPSMAP_LINK_BIND"]
LINK_HOSTS = _env["OPSMAP_LINK_HOSTS"]
CERTIFICATE_LIFE = _env["OPSMAP_CERTIFICATE_LIFE"]
SIGNER_LIFE = _env["OPSMAP_SIGNER_LIFE"]

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "plain": {
            "class": "opsmap.lib.log_lines.LineFormatter",
            "format": "{levelname:<7} {name}: {message}",
            "style": "{",
        },
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": _env["OPSMAP_LOG_LEVEL"]},
    "loggers": {
        "django.server": {"level": "WARNING"},
        "daphne": {"level": "WARNING"},
        "django.request": {"level": "ERROR"},
        "celery.app.trace": {"level": "WARNING"},
        "uvicorn.access": {"level": "WARNING"},
    },
}
