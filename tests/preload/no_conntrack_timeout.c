/* Loaded into a program by a test (LD_PRELOAD): the kernel refuses conntrack timeouts in rules, as one does that was built
 * without CONFIG_NF_CONNTRACK_TIMEOUT. The object's transport protocol is made one that has none (253: for
 * experiments). */
#include <dlfcn.h>
#include <libnftnl/object.h>

/* The library declares it with names of its own.
 * NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name) */
void nftnl_obj_nlmsg_build_payload(struct nlmsghdr *header, const struct nftnl_obj *object)
{
	void (*real)(struct nlmsghdr *, const struct nftnl_obj *) =
		(void (*)(struct nlmsghdr *, const struct nftnl_obj *))dlsym(RTLD_NEXT, "nftnl_obj_nlmsg_build_payload");
	nftnl_obj_set_u8((struct nftnl_obj *)object, NFTNL_OBJ_CT_TIMEOUT_L4PROTO, 253);
	real(header, object);
}
