/* TLS's other end, and QUIC: what a client of TLS never comes to in libssl.a, a twelfth of the program. See static_openssl.c.
 *
 * libssl asks of each connection whether it is one of QUIC, and of each handshake which side it is, before it calls any of
 * these. */
#include <stdlib.h>

#define NEVER_CALLED(name)                                                                                                     \
	_Noreturn void name(void);                                                                                             \
	_Noreturn void name(void)                                                                                              \
	{                                                                                                                      \
		abort();                                                                                                       \
	}

/* Methods are compared with these: no method is one of QUIC's. */
#define NO_METHOD(name)                                                                                                        \
	const void *name(void);                                                                                                \
	const void *name(void)                                                                                                 \
	{                                                                                                                      \
		return NULL;                                                                                                   \
	}
NO_METHOD(OSSL_QUIC_client_method)
NO_METHOD(OSSL_QUIC_client_thread_method)
NO_METHOD(OSSL_QUIC_server_method)

/* These are called for every context and connection: QUIC's tokens, which nobody looks at, and its part of a handshake. */
void *ossl_quic_new_token_store(void);
void ossl_quic_free_token_store(void *store);
void ossl_quic_tls_clear(void *tls);
void ossl_quic_tls_free(void *tls);

void *ossl_quic_new_token_store(void)
{
	static char store;
	return &store;
}

void ossl_quic_free_token_store(void *store)
{
	(void)store;
}

void ossl_quic_tls_clear(void *tls)
{
	(void)tls;
}

void ossl_quic_tls_free(void *tls)
{
	(void)tls;
}

NEVER_CALLED(ossl_quic_accept_connection)
NEVER_CALLED(ossl_quic_accept_stream)
NEVER_CALLED(ossl_quic_clear_options)
NEVER_CALLED(ossl_quic_conn_get_blocking_mode)
NEVER_CALLED(ossl_quic_conn_get_net_rbio)
NEVER_CALLED(ossl_quic_conn_get_net_wbio)
NEVER_CALLED(ossl_quic_conn_set0_net_rbio)
NEVER_CALLED(ossl_quic_conn_set0_net_wbio)
NEVER_CALLED(ossl_quic_conn_set_blocking_mode)
NEVER_CALLED(ossl_quic_conn_set_initial_peer_addr)
NEVER_CALLED(ossl_quic_conn_shutdown)
NEVER_CALLED(ossl_quic_conn_stream_conclude)
NEVER_CALLED(ossl_quic_conn_stream_new)
NEVER_CALLED(ossl_quic_do_handshake)
NEVER_CALLED(ossl_quic_get0_connection)
NEVER_CALLED(ossl_quic_get0_domain)
NEVER_CALLED(ossl_quic_get0_listener)
NEVER_CALLED(ossl_quic_get_accept_connection_queue_len)
NEVER_CALLED(ossl_quic_get_accept_stream_queue_len)
NEVER_CALLED(ossl_quic_get_conn_close_info)
NEVER_CALLED(ossl_quic_get_domain_flags)
NEVER_CALLED(ossl_quic_get_error)
NEVER_CALLED(ossl_quic_get_event_timeout)
NEVER_CALLED(ossl_quic_get_key_update_type)
NEVER_CALLED(ossl_quic_get_net_read_desired)
NEVER_CALLED(ossl_quic_get_net_write_desired)
NEVER_CALLED(ossl_quic_get_options)
NEVER_CALLED(ossl_quic_get_rpoll_descriptor)
NEVER_CALLED(ossl_quic_get_shutdown)
NEVER_CALLED(ossl_quic_get_stream_id)
NEVER_CALLED(ossl_quic_get_stream_read_error_code)
NEVER_CALLED(ossl_quic_get_stream_read_state)
NEVER_CALLED(ossl_quic_get_stream_type)
NEVER_CALLED(ossl_quic_get_stream_write_error_code)
NEVER_CALLED(ossl_quic_get_stream_write_state)
NEVER_CALLED(ossl_quic_get_value_uint)
NEVER_CALLED(ossl_quic_get_wpoll_descriptor)
NEVER_CALLED(ossl_quic_handle_events)
NEVER_CALLED(ossl_quic_has_pending)
NEVER_CALLED(ossl_quic_is_stream_local)
NEVER_CALLED(ossl_quic_key_update)
NEVER_CALLED(ossl_quic_listen)
NEVER_CALLED(ossl_quic_new_domain)
NEVER_CALLED(ossl_quic_new_from_listener)
NEVER_CALLED(ossl_quic_new_listener)
NEVER_CALLED(ossl_quic_new_listener_from)
NEVER_CALLED(ossl_quic_obj_get0_handshake_layer)
NEVER_CALLED(ossl_quic_set_accept_state)
NEVER_CALLED(ossl_quic_set_connect_state)
NEVER_CALLED(ossl_quic_set_default_stream_mode)
NEVER_CALLED(ossl_quic_set_incoming_stream_policy)
NEVER_CALLED(ossl_quic_set_options)
NEVER_CALLED(ossl_quic_set_value_uint)
NEVER_CALLED(ossl_quic_stream_reset)
NEVER_CALLED(ossl_quic_want)
NEVER_CALLED(ossl_quic_write_flags)

/* A server's handshake. Its side of the extensions stays: a client reads some of a CertificateRequest by it. */
NEVER_CALLED(ossl_statem_server_construct_message)
NEVER_CALLED(ossl_statem_server_max_message_size)
NEVER_CALLED(ossl_statem_server_post_process_message)
NEVER_CALLED(ossl_statem_server_post_work)
NEVER_CALLED(ossl_statem_server_pre_work)
NEVER_CALLED(ossl_statem_server_process_message)
NEVER_CALLED(ossl_statem_server_read_transition)
NEVER_CALLED(ossl_statem_server_write_transition)
NEVER_CALLED(send_certificate_request)
NEVER_CALLED(dtls_raw_hello_verify_request)
