/* ZDS messages to bytes and back. See message.h. */
#include "installer/tunnel/message.h"

#include <errno.h>
#include <string.h>

#include "installer/tunnel/zds.pb-c.h"

typedef Istio__Workload__Zds__WorkloadRequest Request;

static int check_text(const char *what, const char *text, bool may_be_empty, struct error *error)
{
	if (!text || (text[0] == '\0' && !may_be_empty))
		return error_say(error, EINVAL, "a workload without %s can't be told to the tunnel", what);
	for (const char *c = text; *c; c++)
		if (*c <= ' ' || *c >= 0x7f)
			return error_say(error, EINVAL,
					 "the workload's %s \"%.64s\" has a character that no name in Kubernetes has", what,
					 text);
	return 0;
}

static int encode(const Request *request, const char *uid, struct error *error, struct tunnel_message *ret_message)
{
	size_t length = istio__workload__zds__workload_request__get_packed_size(request);
	if (length > TUNNEL_SEND_MAX)
		return error_say(
			error, EMSGSIZE,
			"workload %.64s can't be told to the tunnel: its uid and names make a message of %zu bytes, and the "
			"tunnel reads at most %d",
			uid, length, TUNNEL_SEND_MAX);
	ret_message->length = istio__workload__zds__workload_request__pack(request, ret_message->bytes);
	return 0;
}

int tunnel_encode_add(const struct tunnel_workload *workload, struct error *error, struct tunnel_message *ret_message)
{
	if (check_text("uid", workload->uid, false, error) < 0 || check_text("name", workload->name, false, error) < 0 ||
	    check_text("namespace", workload->namespace_name, false, error) < 0 ||
	    check_text("service account", workload->service_account, true, error) < 0)
		return -1;
	Istio__Workload__Zds__WorkloadInfo info = ISTIO__WORKLOAD__ZDS__WORKLOAD_INFO__INIT;
	Istio__Workload__Zds__AddWorkload add = ISTIO__WORKLOAD__ZDS__ADD_WORKLOAD__INIT;
	Request request = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__INIT;
	info.name = (char *)workload->name;
	info.namespace_ = (char *)workload->namespace_name;
	info.service_account = (char *)workload->service_account;
	add.uid = (char *)workload->uid;
	add.workload_info = &info;
	request.payload_case = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_ADD;
	request.add = &add;
	return encode(&request, workload->uid, error, ret_message);
}

int tunnel_encode_keep(const char *uid, struct error *error, struct tunnel_message *ret_message)
{
	if (check_text("uid", uid, false, error) < 0)
		return -1;
	Istio__Workload__Zds__KeepWorkload keep = ISTIO__WORKLOAD__ZDS__KEEP_WORKLOAD__INIT;
	Request request = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__INIT;
	keep.uid = (char *)uid;
	request.payload_case = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_KEEP;
	request.keep = &keep;
	return encode(&request, uid, error, ret_message);
}

int tunnel_encode_delete(const char *uid, struct error *error, struct tunnel_message *ret_message)
{
	if (check_text("uid", uid, false, error) < 0)
		return -1;
	Istio__Workload__Zds__DelWorkload del = ISTIO__WORKLOAD__ZDS__DEL_WORKLOAD__INIT;
	Request request = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__INIT;
	del.uid = (char *)uid;
	request.payload_case = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_DEL;
	request.del = &del;
	return encode(&request, uid, error, ret_message);
}

void tunnel_encode_snapshot_sent(struct tunnel_message *ret_message)
{
	Istio__Workload__Zds__SnapshotSent sent = ISTIO__WORKLOAD__ZDS__SNAPSHOT_SENT__INIT;
	Request request = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__INIT;
	request.payload_case = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_SNAPSHOT_SENT;
	request.snapshot_sent = &sent;
	encode(&request, "", NULL, ret_message);
}

int tunnel_decode_hello(const uint8_t *bytes, size_t length, struct error *error, int *ret_version)
{
	Istio__Workload__Zds__ZdsHello *hello = istio__workload__zds__zds_hello__unpack(NULL, length, bytes);
	if (!hello)
		return error_say(error, EPROTO, "the first message (%zu bytes) is no ZdsHello", length);
	int version = (int)hello->version;
	istio__workload__zds__zds_hello__free_unpacked(hello, NULL);
	if (version < ISTIO__WORKLOAD__ZDS__VERSION__V1)
		return error_say(error, EPROTO, "the first message says protocol version %d, expected %d", version,
				 ISTIO__WORKLOAD__ZDS__VERSION__V1);
	*ret_version = version;
	return 0;
}

int tunnel_decode_answer(const uint8_t *bytes, size_t length, struct error *error, bool *ret_is_accepted,
			 struct error *ret_refusal)
{
	Istio__Workload__Zds__WorkloadResponse *response = istio__workload__zds__workload_response__unpack(NULL, length, bytes);
	if (!response)
		return error_say(error, EPROTO, "an answer (%zu bytes) is no WorkloadResponse", length);
	if (response->payload_case != ISTIO__WORKLOAD__ZDS__WORKLOAD_RESPONSE__PAYLOAD_ACK) {
		istio__workload__zds__workload_response__free_unpacked(response, NULL);
		return error_say(error, EPROTO, "an answer (%zu bytes) holds no Ack", length);
	}
	*ret_is_accepted = response->ack->error[0] == '\0';
	if (!*ret_is_accepted)
		error_say(ret_refusal, EREMOTEIO, "the tunnel refused it: %s", response->ack->error);
	istio__workload__zds__workload_response__free_unpacked(response, NULL);
	return 0;
}
