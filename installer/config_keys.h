/* The table of the configuration's keys, and what a key of each type accepts. Private to installer/config*.c. */
#ifndef AMBIENT_INSTALLER_CONFIG_KEYS_H
#define AMBIENT_INSTALLER_CONFIG_KEYS_H

#include "installer/config.h"

enum config_type {
	CONFIG_TYPE_TEXT,	     /* char *: any text */
	CONFIG_TYPE_NAME,	     /* char *: a Kubernetes name */
	CONFIG_TYPE_PATH,	     /* char *: an absolute path */
	CONFIG_TYPE_OPTIONAL_PATH,   /* the same, or empty */
	CONFIG_TYPE_FILE_NAME,	     /* char *: a name without directories */
	CONFIG_TYPE_OPTIONAL_FILE,   /* the same, or empty */
	CONFIG_TYPE_BOOL,	     /* bool */
	CONFIG_TYPE_INTEGER,	     /* long, minimum to maximum */
	CONFIG_TYPE_CHOICE,	     /* an enum: the place in `choices` */
	CONFIG_TYPE_NAMES,	     /* char **, and the count after it: Kubernetes names */
	CONFIG_TYPE_MODE,	     /* mode_t */
	CONFIG_TYPE_LISTEN,	     /* struct listen_address */
	CONFIG_TYPE_LISTEN_LOOPBACK, /* the same, on this host alone */
	CONFIG_TYPE_SOURCE,	     /* source and source_folder */
	CONFIG_TYPE_SELECTORS,	     /* struct enablement_selectors */
	CONFIG_TYPE_REDIRECT,	     /* one key of the struct redirect, which redirect_from_json reads */
};

struct config_key {
	const char *name; /* dotted */
	enum config_type type;
	size_t offset;		    /* of the member in struct installer_config */
	const char *default_value;  /* as JSON; NULL: found at the start, as `default_words` say */
	const char *default_words;  /* NULL: the value speaks for itself */
	const char *variable;	    /* of the environment, looked at before the default; NULL: none */
	const char *const *choices; /* of a CHOICE, ends with NULL */
	long minimum, maximum;	    /* of an INTEGER; the most bytes of a PATH, 0: no bound of its own */
	const char *expected;	    /* of a REDIRECT: what it accepts, for the reference */
	const char *description;    /* one sentence */
};

extern const struct config_key config_keys[];
extern const size_t config_keys_count;

/* Whether `--set` takes the value as it stands, without reading it as JSON. */
bool config_key_is_text(const struct config_key *key);

/* "true or false", "an absolute path": what the key accepts, in words. */
void config_key_expected(const struct config_key *key, char *text, size_t size);

/* Reads a value into the struct's member, which is empty. The message begins with the key and the place in it. */
int config_key_read(const struct config_key *key, const cJSON *value, struct error *error, struct installer_config *config);

/* Frees the member. */
void config_key_clear(const struct config_key *key, struct installer_config *config);

#endif
