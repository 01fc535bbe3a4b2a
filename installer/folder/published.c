/* What the listener was told. See published.h. */
#include "installer/folder/published.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"

/* An object and where it is; `place` counts all objects in the order of file names. */
struct candidate {
	struct folder_object *object;
	const char *file;
	size_t place;
};

static int compare_objects(const struct folder_object *a, const struct folder_object *b)
{
	return a->kind != b->kind ? (a->kind > b->kind) - (a->kind < b->kind) : strcmp(a->key, b->key);
}

static int compare_places(const struct candidate *a, const struct candidate *b)
{
	return (a->place > b->place) - (a->place < b->place);
}

static int by_key(const void *a, const void *b)
{
	const struct candidate *first = a, *second = b;
	int order = compare_objects(first->object, second->object);
	return order ? order : compare_places(first, second);
}

static int by_uid(const void *a, const void *b)
{
	const struct candidate *first = a, *second = b;
	if (first->object->kind != second->object->kind)
		return (first->object->kind > second->object->kind) - (first->object->kind < second->object->kind);
	int order = strcmp(first->object->uid, second->object->uid);
	return order ? order : compare_places(first, second);
}

static bool is_same_key(const struct folder_object *a, const struct folder_object *b)
{
	return compare_objects(a, b) == 0;
}

static bool is_same_uid(const struct folder_object *a, const struct folder_object *b)
{
	return a->kind == b->kind && strcmp(a->uid, b->uid) == 0;
}

static void add_duplicate(struct folder_duplicates *duplicates, const struct candidate *kept, const struct candidate *dropped)
{
	const char *kind = folder_kind_name(kept->object->kind);
	if (duplicates[kept->object->kind].count++ > 0)
		return;
	char *text = NULL;
	int length;
	if (is_same_key(kept->object, dropped->object))
		length = asprintf(&text, "%s %s is in %s and again in %s: the first one counts", kind, kept->object->key,
				  kept->file, dropped->file);
	else
		length = asprintf(&text, "%s %s in %s and %s %s in %s have the same uid %s: the first one counts", kind,
				  kept->object->key, kept->file, kind, dropped->object->key, dropped->file, kept->object->uid);
	duplicates[kept->object->kind].first = length < 0 ? NULL : text;
}

/* Keeps the first of those that are the same; the candidates are sorted so that they stand side by side. */
static size_t keep_first(struct candidate *candidates, size_t count,
			 bool (*is_same)(const struct folder_object *a, const struct folder_object *b),
			 struct folder_duplicates *duplicates)
{
	size_t kept = 0;
	for (size_t i = 0; i < count; i++) {
		if (kept > 0 && is_same(candidates[kept - 1].object, candidates[i].object))
			add_duplicate(duplicates, &candidates[kept - 1], &candidates[i]);
		else
			candidates[kept++] = candidates[i];
	}
	return kept;
}

void folder_published_clear(struct folder_published *published)
{
	for (size_t i = 0; i < published->count; i++)
		folder_object_put(published->items[i]);
	free(published->items);
	for (size_t kind = 0; kind < SOURCE_KIND_COUNT; kind++)
		free(published->duplicates[kind].first);
	*published = (struct folder_published){ 0 };
}

/* All files' objects, each once. */
static int merge(const struct folder_files *files, struct folder_published *ret_merged)
{
	struct folder_published merged = { 0 };
	size_t count = 0;
	for (size_t i = 0; i < files->count; i++)
		count += files->items[i].objects.count;
	cleanup_free struct candidate *candidates = reallocarray(NULL, count + 1, sizeof *candidates);
	merged.items = reallocarray(NULL, count + 1, sizeof *merged.items);
	if (!candidates || !merged.items) {
		free(merged.items);
		return -1;
	}
	count = 0;
	for (size_t i = 0; i < files->count; i++) {
		const struct folder_file *file = &files->items[i];
		for (size_t j = 0; j < file->objects.count; j++, count++)
			candidates[count] = (struct candidate){ file->objects.items[j], file->name, count };
	}
	qsort(candidates, count, sizeof *candidates, by_key);
	count = keep_first(candidates, count, is_same_key, merged.duplicates);
	qsort(candidates, count, sizeof *candidates, by_uid);
	count = keep_first(candidates, count, is_same_uid, merged.duplicates);
	qsort(candidates, count, sizeof *candidates, by_key);
	for (size_t i = 0; i < count; i++)
		merged.items[merged.count++] = folder_object_get(candidates[i].object);
	*ret_merged = merged;
	return 0;
}

/* Tells what is in `from` and not in `to`, or there under another uid, or (`is_put`) not the same there. Both are sorted.
 * False: the listener could not take it in. */
static bool tell(const struct folder_published *from, const struct folder_published *to, enum source_kind kind, bool is_put,
		 const struct source_listener *listener)
{
	size_t at = 0;
	bool is_taken = true;
	for (size_t i = 0; is_taken && i < from->count; i++) {
		const struct folder_object *object = from->items[i], *other = NULL;
		if (object->kind != kind)
			continue;
		while (at < to->count && compare_objects(to->items[at], object) < 0)
			at++;
		if (at < to->count && is_same_key(to->items[at], object))
			other = to->items[at];
		if (other && strcmp(other->uid, object->uid) != 0)
			other = NULL;
		if (is_put && (!other || (other != object && !cJSON_Compare(other->json, object->json, true))))
			is_taken = listener->put(listener->data, kind, object->json);
		else if (!is_put && !other)
			listener->gone(listener->data, kind, object->json);
	}
	return is_taken;
}

static bool tell_kind(const struct folder_published *before, const struct folder_published *now, enum source_kind kind,
		      const struct source_listener *listener, bool is_list)
{
	if (is_list)
		listener->list_started(listener->data, kind);
	else
		(void)tell(before, now, kind, false, listener);
	if (!tell(now, before, kind, true, listener))
		return false;
	if (is_list)
		listener->list_finished(listener->data, kind);
	return true;
}

int folder_published_update(struct folder_published *published, const struct folder_files *files,
			    const struct source_listener *listener, bool is_list)
{
	struct folder_published before = *published;
	*published = (struct folder_published){ 0 };
	bool is_told = merge(files, published) == 0;
	if (is_list)
		folder_published_clear(&before);
	for (enum source_kind kind = 0; is_told && kind < SOURCE_KIND_COUNT; kind++)
		is_told = tell_kind(&before, published, kind, listener, is_list);
	folder_published_clear(&before);
	return is_told ? 0 : -1;
}

const struct folder_object *folder_published_find(const struct folder_published *published, enum source_kind kind,
						  const char *key)
{
	size_t low = 0, high = published->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct folder_object *object = published->items[middle];
		int order = object->kind != kind ? (object->kind > kind ? 1 : -1) : strcmp(object->key, key);
		if (order == 0)
			return object;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}
